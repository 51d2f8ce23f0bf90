package output

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// maxRead is how many bytes of a file a template reads.
const maxRead = 1 << 20

// ReadFile reads a regular file of at most 1 MiB for a template: any, or one that is in the
// sandbox if there is one. Errors may show the path, which a template may make of a
// secret: [render.Template.Execute] puts them in other words.
func ReadFile(sandbox, path string) (string, error) {
	if sandbox == "" {
		content, err := safefile.Read(path, maxRead)
		return string(content), err
	}
	inside, err := filepath.Rel(sandbox, path)
	if err != nil || !filepath.IsLocal(inside) {
		return "", render.ErrOutsideSandbox
	}
	root, err := drop.OpenFolder(sandbox)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	content, err := safefile.ReadIn(root, inside, maxRead) // It follows no link out of the sandbox.
	var leaves *fs.PathError
	if errors.As(err, &leaves) && leaves.Err.Error() == "path escapes from parent" { // os exports no such error.
		return "", render.ErrOutsideSandbox
	}
	return string(content), err
}
