package config

import (
	"crypto/sha256"
	"maps"
	"os"
	"slices"

	"github.com/smarteros/deaddrop/agent/internal/textfile"
)

// Digest identifies the content of a file, or the names of the configuration files in a
// folder. All files that cannot be read have the same one.
type Digest [sha256.Size]byte

var (
	// inconsistent is the digest of a file that was read twice with different contents. No
	// file has it, so the configuration is read again.
	inconsistent = Digest{}
	unreadable   = Digest{1}
)

// Sources are the files and folders that a configuration was read from, with the digest
// of what was read of each.
type Sources map[string]Digest

// ReadSources returns files and folders as they are now. Streams are not read: see
// [textfile.IsStream].
func ReadSources(paths ...string) Sources {
	s := Sources{}
	for _, path := range paths {
		s[path] = digestOf(path)
	}
	return s
}

// Paths returns the paths in order.
func (s Sources) Paths() []string { return slices.Sorted(maps.Keys(s)) }

func digestOf(path string) Digest {
	if textfile.IsStream(path) {
		return unreadable
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return digestOfFolder(inFolder(path))
	}
	return digestOfContent(textfile.Read(path))
}

func digestOfContent(content []byte, err error) Digest {
	if err != nil {
		return unreadable
	}
	return sha256.Sum256(content)
}

func digestOfFolder(files []string, err error) Digest {
	if err != nil {
		return unreadable
	}
	h := sha256.New()
	for _, file := range files {
		h.Write([]byte(file + "\x00"))
	}
	return Digest(h.Sum(nil))
}

// readFile reads a file of the configuration and keeps its digest.
func (l *loader) readFile(path string) ([]byte, error) {
	content, err := textfile.Read(path)
	l.noteRead(path, content, err)
	return content, err
}

// noteRead keeps the digest of a file that was read.
func (l *loader) noteRead(path string, content []byte, err error) {
	switch {
	case textfile.IsStream(path):
		l.noteSource(path, unreadable)
	case err != nil:
		l.noteUnread(path)
	default:
		l.noteSource(path, digestOfContent(content, nil))
	}
}

func (l *loader) noteSource(path string, is Digest) {
	if before, known := l.read[path]; known && before != is {
		is = inconsistent
	}
	l.read[path] = is
}

// noteUnread notes a file that could not be read. The configuration depends on it only if
// it is refused.
func (l *loader) noteUnread(path string) {
	l.unread[path] = unreadable
}

// err returns nil where nothing is wrong, and else an [*Error] with the files that were
// tried.
func (l *loader) err() error {
	err := l.problems.err()
	if wrong, ok := err.(*Error); ok {
		wrong.Sources = Sources{}
		maps.Copy(wrong.Sources, l.unread)
		maps.Copy(wrong.Sources, l.read)
	}
	return err
}
