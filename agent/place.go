package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/filestate"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// This file is about where files go, and which files templates read.

// tidy looks at the folder of a drop when it is first heard of: what a killed
// agent has left there is removed, and what is unwise is said once.
func (d *dropper) tidy(s *state) {
	folder := filepath.Dir(s.drop.Destination)
	if d.folders[folder] {
		return
	}
	d.folders[folder] = true
	there := drop.Nearest(folder) // A folder that was not finished is beside its place.
	if there == folder || !d.cleaned[there] {
		d.cleaned[there] = true
		d.clean(s.drop.Place, there, there == folder)
	}
	is, err := drop.Inspect(folder)
	if err != nil {
		return // Writing will tell.
	}
	if s.of != nil { // The folders of a thousand tenants are as one.
		if d.placed[s.of.of.Place] {
			return
		}
		d.placed[s.of.of.Place] = true
	}
	if is.OthersMayWrite && !s.drop.Strict {
		d.log.Warn("folder is writable by every user", "folder", folder, "hint", "chmod o-w "+folder)
	}
	if is.OnDisk && !s.drop.RequireTmpfs {
		d.log.Warn("the folder is on a disk, where secrets stay after the file is gone",
			"folder", folder, "file_system", is.FileSystem, "mounted_at", is.Mount, "hint", inMemory(folder))
	}
}

// clean removes what a killed agent has left in a folder. Only in one that files are
// written to it has to be able to look.
func (d *dropper) clean(place, folder string, isOwn bool) {
	if folder != place && !config.IsBelow(folder, place) {
		place = "" // It is not there yet: folder is above it, and the operator's.
	}
	removed, err := drop.CleanBelow(place, folder, time.Now())
	if err != nil && isOwn {
		d.log.Warn("what a killed agent may have left cannot be removed", "folder", folder, "error", err)
	}
	if removed > 0 {
		d.log.Info("removed what a killed agent has left", "folder", folder, "count", removed)
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
			if is, err := drop.Inspect(path); err == nil && !is.OnDisk && exists(path) {
				return "a tmpfs keeps them in memory: " + path + " is one here, or mount one at " + folder
			}
		}
	}
	return "a tmpfs keeps them in memory: mount one at " + folder
}

// mayHold tells whether the folder of a drop is as safe as it wants it. seen
// holds what was found out of folders in this step.
func (d *dropper) mayHold(s *state, seen map[string]error) error {
	if !s.drop.Strict && !s.drop.RequireTmpfs {
		return nil
	}
	folder := filepath.Dir(s.drop.Destination)
	key := fmt.Sprint(s.drop.Strict, s.drop.RequireTmpfs, folder)
	err, known := seen[key]
	if known {
		return err
	}
	is, err := drop.Inspect(folder)
	if s.drop.Strict && err == nil {
		if err = drop.CheckTrustedOrNew(folder); err != nil {
			err = fmt.Errorf("strict: folder %w", err)
		}
	}
	switch {
	case err != nil:
	case s.drop.RequireTmpfs && is.OnDisk:
		err = fmt.Errorf("require_tmpfs: folder %s is %s, where secrets stay after the file is gone; %s", folder, OnDisk(is), inMemory(folder))
	}
	seen[key] = err
	return err
}

// onExit removes the files that are not to outlive the agent.
func (d *dropper) onExit() {
	for _, g := range d.groups() {
		for _, s := range g.states {
			if !s.drop.RemoveOnExit {
				continue
			}
			err := s.takeAway()
			if err != nil {
				d.log.Error("a file that is not to outlive the agent cannot be removed", "drop", s.drop.Name, "destination", s.drop.Destination, "error", err)
			}
		}
	}
}

// takeAway removes the files of a drop; those of a set go together.
func (s *state) takeAway() error {
	if s.drop.Set != nil {
		return drop.RemoveSetBelow(s.drop.Place, s.drop.Set.Folder)
	}
	var errs []error
	for _, path := range append(s.drop.Paths(), s.sides...) {
		_, err := s.remove(path)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// remove removes a file of the drop. If nobody else may have a say in its folder, nothing
// is removed from one in which somebody has.
func (s *state) remove(path string) (removed bool, err error) {
	if s.drop.Strict {
		err := drop.CheckTrusted(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("strict: %w", err)
		}
	}
	return drop.RemoveBelow(s.placeOf(path), path)
}

// placeOf is the place of all tenants' files that a file is below, or "".
func (s *state) placeOf(path string) string {
	if s.drop.Place != "" && config.IsBelow(path, s.drop.Place) {
		return s.drop.Place
	}
	return ""
}

// sideFiles are what a template has written by "writeToFile".
func sideFiles(files []render.SideFile) ([]drop.File, error) {
	var all []drop.File
	for i, f := range files {
		to := drop.File{Path: f.Path, Content: f.Content, Mode: f.Mode, CreateDirs: true}
		if f.User != "" {
			id, err := drop.UserID(f.User)
			if err != nil {
				return nil, unknownOwner("user", i)
			}
			to.UID = &id
		}
		if f.Group != "" {
			id, err := drop.GroupID(f.Group)
			if err != nil {
				return nil, unknownOwner("group", i)
			}
			to.GID = &id
		}
		all = append(all, to)
	}
	return all, nil
}

// unknownOwner shows neither the name nor the path of the file: a template may make them of
// a secret, or mix up its arguments.
func unknownOwner(what string, i int) error {
	return fmt.Errorf("writeToFile: the %s of file %d of the template is not known on this machine; write its number, if it is known elsewhere", what, i+1)
}

func pathsOf(files []drop.File) []string {
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	return paths
}

// readFile is one that a template has read, as it was then.
type readFile struct{ path, version string }

// versionOf tells whether a file was replaced or written to. It is "" for none.
func versionOf(path string) string {
	state, _, _ := filestate.Of(path)
	return state
}

// readFile reads a file for a template, from the sandbox where there is one.
func (s *state) readFile(path string) (string, error) {
	s.reads = append(s.reads, readFile{path, versionOf(path)})
	return ReadFile(s.drop.Sandbox, path)
}

// largestRead is how many bytes of a file a template reads.
const largestRead = 1 << 20

// ReadFile reads a regular file of at most 1 MiB for a template: any, or one that is in the
// sandbox where there is one. Errors may show the path, which a template may make of a
// secret: [render.Template.Execute] puts them in other words.
func ReadFile(sandbox, path string) (string, error) {
	if sandbox == "" {
		content, err := safefile.Read(path, largestRead)
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
	content, err := safefile.ReadIn(root, inside, largestRead) // It follows no link out of the sandbox.
	var leaves *fs.PathError
	if errors.As(err, &leaves) && leaves.Err.Error() == "path escapes from parent" { // os exports no such error.
		return "", render.ErrOutsideSandbox
	}
	return string(content), err
}

// readsFiles tells whether a template reads files.
func (d *dropper) readsFiles() bool {
	for _, s := range d.states {
		if len(s.reads)+len(s.made) > 0 {
			return true
		}
	}
	return false
}

// lookAtFiles marks the drops whose templates have read files that have changed.
func (d *dropper) lookAtFiles() {
	d.rebuild(func(m *member) bool { return slices.ContainsFunc(m.states, (*state).isMadeOfOld) })
	for _, s := range d.states {
		for _, f := range s.reads {
			if !s.dirty && versionOf(f.path) != f.version {
				s.touch()
			}
		}
	}
}
