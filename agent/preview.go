package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// FilePreview is a file as a render would leave it. It holds secrets.
type FilePreview struct {
	Destination string
	Format      render.Format
	Mode        fs.FileMode
	OldMode     fs.FileMode // of the file now
	// Old is the content now, nil where there is no file; New is the content
	// after it, nil where the file would be removed.
	Old, New []byte
}

// Preview returns what [Once] would do with files. It writes nothing, and runs no check and
// no reload. Credentials that Vault issues for it are revoked, as far as they can be. Files
// that could not be rendered are not in the result, but in the error.
func Preview(ctx context.Context, cfg *config.Config, log *slog.Logger) ([]FilePreview, error) {
	vault, err := session.New(cfg.Vault, cfg.Auth, log)
	if err != nil {
		return nil, err
	}
	if err := session.Retry(ctx, log, session.IsTransient, func() error { return vault.Login(ctx) }); err != nil {
		return nil, err
	}
	secrets := watch.NewSecrets(vault)
	p := newPipeline(log)
	p.isDry = true
	p.configure(filesOnly(cfg))
	var files []FilePreview
	p.resolve(ctx, secrets, func() { files = append(files, p.preview()...) })
	files = append(files, p.previewExpired()...)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutTime)
	defer cancel()
	for _, reading := range p.readings.All() {
		if lease := reading.Life.Lease; lease != nil {
			_ = lease.Revoke(ctx, secrets) // If that is denied, it ends by itself.
		}
	}
	vault.Close(ctx, false)
	return files, p.err()
}

// preview renders what is due, and returns what would become of the files.
func (p *pipeline) preview() []FilePreview {
	var files []FilePreview
	work := p.outputs.RenderDue(time.Now())
	for _, o := range work.Missing {
		p.outputs.NoteRemoved(o)
		files = append(files, removalPreview(o))
	}
	for _, r := range work.Ready {
		for _, f := range r.Files {
			files = append(files, preview(f.Drop.Destination, f.Drop.Format, f.Drop.Mode, f.Content))
			for _, side := range f.SideFiles {
				files = append(files, preview(side.Path, render.FormatTemplate, side.Mode, side.Content))
			}
		}
		p.outputs.Succeed(r, slices.Repeat([]drop.Outcome{drop.Unchanged}, len(r.Files)))
	}
	return files
}

// previewExpired returns the files of departed tenants whose grace period is over.
func (p *pipeline) previewExpired() []FilePreview {
	var files []FilePreview
	for _, o := range p.blocks.Expired() {
		if filestate.Exists(o.Drop.Destination) {
			files = append(files, removalPreview(o))
		}
	}
	return files
}

func removalPreview(o *output.Output) FilePreview {
	return FilePreview{Destination: o.Drop.Destination, Format: o.Drop.Format, Old: contentOf(o.Drop.Destination)}
}

func preview(path string, format render.Format, mode fs.FileMode, content []byte) FilePreview {
	if format == render.FormatTemplate {
		format = render.FormatOf(path)
	}
	if content == nil {
		content = []byte{}
	}
	f := FilePreview{Destination: path, Format: format, Mode: mode.Perm(), Old: contentOf(path), New: content}
	if info, err := os.Stat(path); err == nil {
		f.OldMode = info.Mode().Perm()
	}
	return f
}

// maxReadBack is the most bytes of an existing file that are read to compare it.
const maxReadBack = 32 << 20

func contentOf(path string) []byte {
	content, err := safefile.Read(path, maxReadBack)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return []byte{} // Writing would tell.
	}
	return content
}
