package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// FilePreview is what a render would make of a file. It holds secrets.
type FilePreview struct {
	Destination string
	Format      render.Format
	Mode        fs.FileMode
	OldMode     fs.FileMode // of the file now
	// Old is the content now, nil where there is no file; New is the content
	// after it, nil where the file would be removed.
	Old, New []byte
}

// Preview tells what [Once] would do. It writes nothing, runs no check and no
// reload. What it makes Vault issue is revoked, as far as it can be. Files that
// could not be rendered are not in the answer, but in the error.
func Preview(ctx context.Context, cfg *config.Config, log *slog.Logger) ([]FilePreview, error) {
	vault, err := session.New(cfg.Vault, cfg.Auth, log)
	if err != nil {
		return nil, err
	}
	if err := session.Retry(ctx, log, session.IsTransient, func() error { return vault.Login(ctx) }); err != nil {
		return nil, err
	}
	secrets := watch.NewSecrets(vault)
	d := newDropperOf(filesOnly(cfg), log, true)
	files := d.peek()
	for d.recovered(cfg.CertShare); len(d.lacking()) > 0; d.recovered(cfg.CertShare) {
		d.learn(watch.Fetch(ctx, secrets, d.lacking(), log))
		files = append(files, d.peek()...)
	}
	files = append(files, d.peek()...)
	files = append(files, d.peekAtGone()...)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
	defer cancel()
	for _, reading := range d.readings {
		if l := reading.Life.Lease; l != nil {
			_ = l.Revoke(ctx, secrets) // Where that is denied, it ends by itself.
		}
	}
	vault.Close(ctx, false)
	return files, d.err()
}

// peek renders what can be rendered.
func (d *dropper) peek() []FilePreview {
	var files []FilePreview
	for _, g := range d.groups() {
		if !g.states[0].dirty {
			continue
		}
		r, _, ok := d.renderGroup(g)
		if s := g.states[0]; s.gone {
			files = append(files, FilePreview{Destination: s.drop.Destination, Format: s.drop.Format, Old: contentOf(s.drop.Destination)})
		}
		if !ok {
			continue
		}
		for i, s := range g.states {
			s.dirty = false
			files = append(files, preview(s.drop.Destination, s.drop.Format, s.drop.Mode, r.contents[i]))
			for _, side := range r.sides[i] {
				files = append(files, sidePreview(side))
			}
		}
	}
	return files
}

// peekAtGone are the files of tenants that are gone, whose time is over.
func (d *dropper) peekAtGone() []FilePreview {
	var files []FilePreview
	for _, s := range d.states {
		if s.isGone && s.of.isOver(s.of.members[s.drop.Key]) && exists(s.drop.Destination) {
			files = append(files, FilePreview{Destination: s.drop.Destination, Format: s.drop.Format, Old: contentOf(s.drop.Destination)})
		}
	}
	return files
}

func sidePreview(f drop.File) FilePreview {
	return preview(f.Path, render.FormatTemplate, f.Mode, f.Content)
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

func contentOf(path string) []byte {
	content, err := safefile.Read(path, maxReadBack)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return []byte{} // Writing would tell.
	}
	return content
}
