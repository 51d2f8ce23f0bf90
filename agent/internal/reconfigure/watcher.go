package reconfigure

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/smarteros/deaddrop/agent/internal/filestate"
)

// pollInterval is how often files are polled that cannot be watched.
const pollInterval = 5 * time.Second

// Notifier reports changed entries of folders.
type Notifier interface {
	// Add watches a folder; one that is watched already is no error.
	Add(folder string) error
	Remove(folder string) error
	Events() <-chan fsnotify.Event
	// Errors delivers [fsnotify.ErrEventOverflow] when events were lost.
	Errors() <-chan error
	Close() error
}

type systemNotifier struct{ *fsnotify.Watcher }

func newNotifier() (Notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return systemNotifier{w}, nil
}

func (n systemNotifier) Events() <-chan fsnotify.Event { return n.Watcher.Events }
func (n systemNotifier) Errors() <-chan error          { return n.Watcher.Errors }

// watcher notices that files may have changed: notified by the system, or else by
// polling. Linux counts the instances of inotify of all processes of a user, and every
// container may run as the same one.
type watcher struct {
	notifier Notifier // nil where there can be none
	log      *slog.Logger
	files    []string
	entries  entries
	poll     <-chan time.Time // nil where all files are watched
	states   string           // of the files, at the last poll
}

func newWatcher(create func() (Notifier, error), log *slog.Logger) *watcher {
	w := &watcher{log: log}
	notifier, err := create()
	if err != nil {
		w.startPolling(err)
		return w
	}
	w.notifier = notifier
	return w
}

func (w *watcher) close() {
	if w.notifier != nil {
		_ = w.notifier.Close()
	}
}

func (w *watcher) events() <-chan fsnotify.Event {
	if w == nil || w.notifier == nil {
		return nil
	}
	return w.notifier.Events()
}

func (w *watcher) failures() <-chan error {
	if w == nil || w.notifier == nil {
		return nil
	}
	return w.notifier.Errors()
}

func (w *watcher) ticks() <-chan time.Time {
	if w == nil {
		return nil
	}
	return w.poll
}

// follow watches files instead of those of before. Their folders are watched, since most
// programs replace a file rather than write into it. It is called again for the same
// files after each change, because folders and links may have been replaced, too.
func (w *watcher) follow(files []string) {
	if !slices.Equal(files, w.files) {
		w.files, w.states = files, statesOf(files)
	}
	if w.notifier == nil {
		return
	}
	before := w.entries
	w.entries = entriesOf(files)
	for folder := range before.folders {
		if !w.entries.folders[folder] {
			_ = w.notifier.Remove(folder) // It may be gone.
		}
	}
	for folder := range w.entries.folders {
		if err := w.notifier.Add(folder); err != nil {
			w.startPolling(fmt.Errorf("folder %s: %w", folder, err))
		}
	}
}

// concerns reports whether an event may be of one of the files. It goes by the last
// element of the path alone, as one folder may be watched by several paths.
func (w *watcher) concerns(event fsnotify.Event) bool {
	name := filepath.Base(event.Name)
	return w.entries.names[name] || w.entries.hasFolder && isConfigFile(name)
}

func isConfigFile(name string) bool {
	return strings.HasSuffix(name, ".hcl") || strings.HasSuffix(name, ".json")
}

// startPolling polls the files from now on, and logs why, once.
func (w *watcher) startPolling(err error) {
	if w.poll != nil {
		return
	}
	w.poll, w.states = time.Tick(pollInterval), statesOf(w.files)
	attributes := []any{"interval", pollInterval, "error", err}
	switch {
	case errors.Is(err, syscall.EMFILE):
		attributes = append(attributes, "hint", "raise sysctl fs.inotify.max_user_instances, which counts all processes of the user, or the limit of open files")
	case errors.Is(err, syscall.ENOSPC):
		attributes = append(attributes, "hint", "raise sysctl fs.inotify.max_user_watches, which counts all processes of the user")
	}
	w.log.Warn("cannot watch configuration files, polling them", attributes...)
}

// hasNewStates reports whether the files differ from those of the last poll.
func (w *watcher) hasNewStates() bool {
	before := w.states
	w.states = statesOf(w.files)
	return w.states != before
}

// statesOf returns a text that differs once one of the files was replaced or written to.
func statesOf(files []string) string {
	var all strings.Builder
	for _, file := range files {
		state, _, err := filestate.Of(file)
		if err != nil {
			state = err.Error()
		}
		all.WriteString(state + "\n")
	}
	return all.String()
}

// entries are what has to be watched to notice changes of files.
type entries struct {
	folders   map[string]bool // without links in their paths
	names     map[string]bool // of files, links and the folders themselves
	hasFolder bool            // one of the files is a folder of configuration files
}

func entriesOf(files []string) entries {
	e := entries{folders: map[string]bool{}, names: map[string]bool{}}
	for _, file := range files {
		e.add(file)
	}
	for folder := range e.folders {
		e.names[filepath.Base(folder)] = true
	}
	return e
}

// maxLinks is how many links a path may have, as for Linux.
const maxLinks = 40

// add walks a path, and adds each link on it with its folder, and the file itself:
// Kubernetes replaces the link ..data beside the link that a path names. Of a path that
// does not exist it adds the first element that is missing.
func (e *entries) add(path string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return
	}
	folder, rest := "/", elements(path)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			folder = filepath.Dir(folder)
			continue
		}
		entry := filepath.Join(folder, name)
		info, err := os.Lstat(entry)
		isLink := err == nil && info.Mode()&os.ModeSymlink != 0
		if err != nil || isLink || len(rest) == 0 {
			e.folders[folder], e.names[name] = true, true
		}
		switch {
		case err != nil:
			return
		case isLink:
			target, err := os.Readlink(entry)
			if links++; err != nil || links > maxLinks {
				return
			}
			if filepath.IsAbs(target) {
				folder = "/"
			}
			rest = append(elements(target), rest...)
		default:
			folder = entry
		}
	}
	if info, err := os.Stat(folder); err == nil && info.IsDir() {
		e.folders[folder], e.hasFolder = true, true
	}
}

func elements(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}
