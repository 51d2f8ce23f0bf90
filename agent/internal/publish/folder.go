package publish

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/render/drop"
)

// Folders looks at the folders of files before they are first used.
type Folders struct {
	log     *slog.Logger
	seen    map[string]bool // folders that were looked at
	cleaned map[string]bool // those above folders that were missing
	places  map[string]bool // places of tenants that were warned of
}

// NewFolders returns Folders that have seen none.
func NewFolders(log *slog.Logger) *Folders {
	return &Folders{log: log, seen: map[string]bool{}, cleaned: map[string]bool{}, places: map[string]bool{}}
}

// Visit looks at the folder of a drop, if it has not been looked at before: it removes what
// a killed agent has left there, and warns of a folder that is unwise.
func (f *Folders) Visit(d *config.Drop) {
	folder := filepath.Dir(d.Destination)
	if f.seen[folder] {
		return
	}
	f.seen[folder] = true
	nearest := drop.Nearest(folder) // A folder that was not finished is beside its place.
	if nearest == folder || !f.cleaned[nearest] {
		f.cleaned[nearest] = true
		f.clean(d.Place, nearest, nearest == folder)
	}
	is, err := drop.Inspect(folder)
	if err != nil {
		return // Writing will tell.
	}
	if d.Place != "" { // The folders of a thousand tenants are as one.
		if f.places[d.Place] {
			return
		}
		f.places[d.Place] = true
	}
	if is.OthersMayWrite && !d.Strict {
		f.log.Warn("folder is writable by every user", "folder", folder, "hint", "chmod o-w "+folder)
	}
	if is.OnDisk && !d.RequireTmpfs {
		f.log.Warn("the folder is on a disk, where secrets stay after the file is gone",
			"folder", folder, "file_system", is.FileSystem, "mounted_at", is.Mount, "hint", inMemory(folder))
	}
}

// Forget has a folder looked at again when it is used the next time.
func (f *Folders) Forget(folder string) { delete(f.seen, folder) }

// clean removes what a killed agent has left in a folder. Only in one that files are
// written to it has to be able to look.
func (f *Folders) clean(place, folder string, isOwn bool) {
	if folder != place && !config.IsBelow(folder, place) {
		place = "" // It is not there yet: folder is above it, and the operator's.
	}
	removed, err := drop.CleanBelow(place, folder, time.Now())
	if err != nil && isOwn {
		f.log.Warn("what a killed agent may have left cannot be removed", "folder", folder, "error", err)
	}
	if removed > 0 {
		f.log.Info("removed what a killed agent has left", "folder", folder, "count", removed)
	}
}

// OnDisk says that a folder is on a disk, and on which.
func OnDisk(is drop.Folder) string {
	if is.FileSystem == "" {
		return "on a disk"
	}
	return fmt.Sprintf("on a disk (%s, mounted at %s)", is.FileSystem, is.Mount)
}

// inMemory says where files are in memory on this machine.
func inMemory(folder string) string {
	if whole, err := filepath.Abs(folder); err == nil {
		folder = whole
	}
	if root, err := drop.Inspect("/"); err == nil && root.FileSystem != "overlay" { // Which a container has to itself.
		for _, path := range []string{"/run", "/dev/shm"} {
			if is, err := drop.Inspect(path); err == nil && !is.OnDisk && filestate.Exists(path) {
				return "a tmpfs keeps them in memory: " + path + " is one here, or mount one at " + folder
			}
		}
	}
	return "a tmpfs keeps them in memory: mount one at " + folder
}

// policy is what a drop demands of its folder.
type policy struct {
	strict, requireTmpfs bool
	folder               string
}

// refusal returns why a folder may not hold the files of a group, and of which file it is.
// known holds what was found out of folders in this batch.
func refusal(r output.Rendered, known map[policy]error) (file int, err error) {
	for i, f := range r.Files {
		if !f.Drop.Strict && !f.Drop.RequireTmpfs {
			continue
		}
		wants := policy{f.Drop.Strict, f.Drop.RequireTmpfs, filepath.Dir(f.Drop.Destination)}
		err, isKnown := known[wants]
		if !isKnown {
			err = wants.check()
			known[wants] = err
		}
		if err != nil {
			return i, err
		}
	}
	return 0, nil
}

func (p policy) check() error {
	is, err := drop.Inspect(p.folder)
	if err != nil {
		return err
	}
	if p.strict {
		if err := drop.CheckTrustedOrNew(p.folder); err != nil {
			return fmt.Errorf("strict: folder %w", err)
		}
	}
	if p.requireTmpfs && is.OnDisk {
		return fmt.Errorf("require_tmpfs: folder %s is %s, where secrets stay after the file is gone; %s", p.folder, OnDisk(is), inMemory(p.folder))
	}
	return nil
}

// placeOf is the place of all tenants' files that a file is below, or "".
func placeOf(d *config.Drop, path string) string {
	if d.Place != "" && config.IsBelow(path, d.Place) {
		return d.Place
	}
	return ""
}
