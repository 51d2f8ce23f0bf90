package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/render/drop"
)

// Remove removes the files of a drop, and those that its template has written besides. The
// files of a set go together.
func Remove(d *config.Drop, sideFiles []string) error {
	if d.Set != nil {
		return drop.RemoveSetBelow(d.Place, d.Set.Folder)
	}
	var errs []error
	for _, path := range append(d.Paths(), sideFiles...) {
		_, err := RemoveFile(d, path)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// RemoveFile removes one file of a drop. A drop that is strict removes nothing from a
// folder in which somebody else has a say.
func RemoveFile(d *config.Drop, path string) (removed bool, err error) {
	if d.Strict {
		err := drop.CheckTrusted(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("strict: %w", err)
		}
	}
	return drop.RemoveBelow(placeOf(d, path), path)
}
