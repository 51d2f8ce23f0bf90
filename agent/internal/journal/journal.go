// Package journal keeps what must survive a restart of the agent: which leases and
// certificates a file holds, which reloads are still pending, and which tenants have
// files. It keeps no secret.
//
// The agent believes a journal, so nobody else may write one. Journals are in the state
// directory (see [Directory]), one file per output. If there is no such directory, the
// journal of an output is a hidden file beside it, but only in a directory to which, like
// its parents, the agent alone can write. Otherwise nothing is kept.
package journal

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// maxSize is the most bytes of a journal: enough for 100,000 tenants.
const maxSize = 16 << 20

// Output is what the agent keeps of one output.
type Output struct {
	// Destination is the path of the file. It is kept as an absolute one.
	Destination string `json:"destination"`
	// Contents are the SHA-256 sums of what the file holds, or is about to hold. They
	// are kept of a file that holds certificates.
	Contents []string `json:"contents,omitempty"`
	// Leases are the ids of the leases that the file holds, or held just before.
	Leases       []string      `json:"leases,omitempty"`
	Certificates []Certificate `json:"certificates,omitempty"`
	// PendingReload says that a reload after the last change may not have happened.
	PendingReload bool `json:"pending_reload,omitempty"`
}

// Certificate is one that the file holds.
type Certificate struct {
	// Request is the hash of the request that it answers.
	Request string `json:"request"`
	// Serial is the serial number in hexadecimal.
	Serial string    `json:"serial"`
	Issued time.Time `json:"issued"`
}

// IsEmpty reports whether there is nothing to keep.
func (o Output) IsEmpty() bool {
	return len(o.Leases)+len(o.Certificates) == 0 && !o.PendingReload
}

// Union returns all that either of two journals of the same output holds.
func (o Output) Union(other Output) Output {
	joined := o
	joined.Contents = union(o.Contents, other.Contents)
	joined.Leases = union(o.Leases, other.Leases)
	joined.PendingReload = o.PendingReload || other.PendingReload
	joined.Certificates = slices.Clone(o.Certificates)
	for _, c := range other.Certificates {
		if !slices.ContainsFunc(joined.Certificates, func(x Certificate) bool { return x.Serial == c.Serial }) {
			joined.Certificates = append(joined.Certificates, c)
		}
	}
	return joined
}

// Covers reports whether a journal holds all that another one holds.
func (o Output) Covers(other Output) bool {
	all := o.Union(other)
	return len(all.Leases) == len(o.Leases) && len(all.Certificates) == len(o.Certificates) &&
		len(all.Contents) == len(o.Contents) && all.PendingReload == o.PendingReload
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, each := range b {
		if !slices.Contains(all, each) {
			all = append(all, each)
		}
	}
	return all
}

// Sum is the hash by which [Output.Contents] names content.
func Sum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Tenants is what the agent keeps of the tenants of a for_each block. Without it the
// next agent would not know which files belong to tenants that have departed meanwhile.
type Tenants struct {
	// Pattern is the destination of the block, with placeholders.
	Pattern string   `json:"pattern"`
	Present []string `json:"present"`
	// Departed are the tenants whose grace period runs, and since when.
	Departed map[string]time.Time `json:"departed,omitempty"`
	// SideFiles are the other files that templates have written, by tenant.
	SideFiles map[string][]string `json:"side_files,omitempty"`
	// PendingReloads are the tenants whose files are removed, and whose reloads may not
	// have happened.
	PendingReloads []string `json:"pending_reloads,omitempty"`
}

// Store reads and writes journals.
type Store struct {
	// ReadOnly keeps the store from removing what it does not believe.
	ReadOnly bool

	dir    string // "" if there is none
	err    error  // why there is none
	log    *slog.Logger
	warned map[string]string // by journal: the problem that was logged last
}

// Open returns the store in a state directory. problem is the error of [Directory] if dir
// is "".
func Open(dir string, problem error, log *slog.Logger) *Store {
	return &Store{dir: dir, err: problem, log: log, warned: map[string]string{}}
}

// Dir is the state directory, or "".
func (s *Store) Dir() string { return s.dir }

// location is where a journal is.
type location struct {
	path string
	// beside is where the journal is if there is no state directory, and where older
	// versions have left it. It is equal to path then.
	beside string
}

func (s *Store) output(destination string) location {
	destination = absolute(destination)
	beside := filepath.Join(filepath.Dir(destination), "."+filepath.Base(destination)+".deaddrop")
	return s.locate(filepath.Base(destination), destination, beside)
}

// tenants is the journal of a for_each block. No output of a tenant has one of this
// name: a tenant id has no plus sign.
func (s *Store) tenants(pattern, place string) location {
	beside := filepath.Join(absolute(place), ".each+"+Sum([]byte(pattern))[:12]+".deaddrop")
	return s.locate("tenants", absolute(pattern), beside)
}

// locate names a journal in the state directory by the hash of its key, behind a name for
// humans.
func (s *Store) locate(name, key, beside string) location {
	if s.dir == "" {
		return location{beside, beside}
	}
	name = strings.ToValidUTF8(name[:min(len(name), 100)], "") // File systems allow 255 bytes.
	return location{filepath.Join(s.dir, strings.TrimLeft(name, ".")+"-"+Sum([]byte(key))[:24]+".json"), beside}
}

func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

// Output returns the journal of an output. It is empty if there is none that can be
// believed: a lease then ends by itself, and a certificate is issued anew.
func (s *Store) Output(destination string) Output {
	var old struct {
		Output
		Untold bool `json:"untold"` // until journals had a state directory
	}
	if !s.load(s.output(destination), &old) || old.Destination != absolute(destination) && old.Destination != "" {
		return Output{Destination: destination}
	}
	old.Destination, old.PendingReload = destination, old.PendingReload || old.Untold
	return old.Output
}

// Tenants returns the journal of a for_each block; ok is false if there is none that
// can be believed.
func (s *Store) Tenants(pattern, place string) (t Tenants, ok bool) {
	var old struct {
		Tenants
		Gone   map[string]time.Time `json:"gone"` // until journals had a state directory, like those below
		Sides  map[string][]string  `json:"sides"`
		Untold []string             `json:"untold"`
	}
	if !s.load(s.tenants(pattern, place), &old) || old.Pattern != pattern && old.Pattern != absolute(pattern) {
		return Tenants{}, false
	}
	t = old.Tenants
	t.Pattern = pattern
	if t.Departed == nil {
		t.Departed = old.Gone
	}
	if t.SideFiles == nil {
		t.SideFiles = old.Sides
	}
	t.PendingReloads = append(t.PendingReloads, old.Untold...)
	return t, true
}

// load reads a journal from where it is, or from where an older version has left it.
func (s *Store) load(at location, into any) bool {
	for _, path := range slices.Compact([]string{at.path, at.beside}) {
		content, err := s.read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(content, into)
		}
		if err != nil {
			s.log.Warn("journal ignored", "file", path, "error", err)
			s.removeOwn(path)
		}
		return err == nil
	}
	return false
}

// removeOwn removes a journal that is not believed, or that stands in the state directory
// by now. One of somebody else is left alone.
func (s *Store) removeOwn(path string) {
	info, err := os.Lstat(path)
	if err != nil || s.ReadOnly {
		return
	}
	if uid, _ := drop.OwnerOf(info); uid == os.Geteuid() {
		_, _ = drop.Remove(path)
	}
}

// read reads a journal that nobody else can have written.
func (s *Store) read(path string) ([]byte, error) {
	if _, err := os.Lstat(path); err != nil {
		return nil, err // Most often there is none.
	}
	dir := filepath.Dir(path)
	root, err := drop.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	if dir != s.dir {
		if err := drop.CheckOwn(dir); err != nil {
			return nil, fmt.Errorf("somebody else may have written it: %w", err)
		}
	}
	f, info, err := safefile.OpenNoFollowIn(root, filepath.Base(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if uid, _ := drop.OwnerOf(info); uid != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("somebody else may have written it: owner %d, mode %04o", uid, info.Mode().Perm())
	}
	return safefile.ReadOpen(f, info, path, maxSize)
}

// SaveOutputs writes journals of outputs, and removes those of outputs that have nothing
// to keep. It reports false if that has failed and is worth another try.
func (s *Store) SaveOutputs(outputs ...Output) bool {
	var all []entry
	for _, o := range outputs {
		o.Destination = absolute(o.Destination)
		all = append(all, entry{s.output(o.Destination), o, o.IsEmpty(), len(o.Leases)+len(o.Certificates) > 0})
	}
	return s.save(all)
}

// SaveTenants writes the journal of a for_each block. It reports false if that has failed
// and is worth another try.
func (s *Store) SaveTenants(place string, t Tenants) bool {
	at := s.tenants(t.Pattern, place)
	t.Pattern = absolute(t.Pattern)
	return s.save([]entry{{at, t, false, true}})
}

// RemoveOutput removes the journal of an output that is no more.
func (s *Store) RemoveOutput(destination string) {
	s.SaveOutputs(Output{Destination: destination})
}

// entry is a journal to be saved.
type entry struct {
	at      location
	content any
	isEmpty bool
	// isVital says that more is lost with it than a pending reload, which matters only
	// if the agent is killed before it.
	isVital bool
}

func (s *Store) save(entries []entry) (ok bool) {
	ok = true
	var files []drop.File
	var written []entry
	for _, e := range entries {
		switch may, isFinal := s.maySave(e); {
		case !may:
			ok = ok && isFinal
		case e.isEmpty:
			if _, err := drop.Remove(e.at.path); err != nil {
				s.warn(e.at, "journal cannot be removed", err, "")
				ok = false
			}
			s.removeLegacy(e.at)
		default:
			content, _ := json.Marshal(e.content) // It has nothing that could fail.
			files = append(files, drop.File{Path: e.at.path, Content: append(content, '\n'), Mode: 0o600})
			written = append(written, e)
		}
	}
	if len(files) == 0 {
		return ok
	}
	if s.dir != "" {
		if err := makeDirectory(s.dir); err != nil {
			s.warn(written[0].at, "journal cannot be written", err, Hint)
			return false
		}
	}
	for i, result := range drop.Write(files) {
		if at, err := written[i].at, cmp.Or(result.Err, result.Unsynced); err != nil {
			s.warn(at, "journal cannot be written", err, "")
			ok = false
		} else {
			delete(s.warned, at.path)
			s.removeLegacy(at)
		}
	}
	return ok
}

// maySave reports whether there is a place for a journal. isFinal says that there will be
// none as long as nobody changes the folder.
func (s *Store) maySave(e entry) (may, isFinal bool) {
	if s.dir != "" {
		return true, true
	}
	folder := filepath.Dir(e.at.beside)
	if _, err := os.Lstat(folder); err != nil {
		return false, e.isEmpty // It is made for the output.
	}
	err := drop.CheckOwn(folder)
	if err != nil && e.isVital {
		s.warn(e.at, "no state directory, nothing is kept for the next start", fmt.Errorf("%w; %w", s.err, err), Hint)
	}
	return err == nil, true
}

// removeLegacy removes what an older version has left beside an output.
func (s *Store) removeLegacy(at location) {
	if at.path != at.beside {
		s.removeOwn(at.beside)
	}
}

// warn logs a problem once.
func (s *Store) warn(at location, message string, err error, hint string) {
	key := at.path
	if s.dir == "" {
		key = filepath.Dir(at.path) // Many outputs have the same problem.
	}
	if text := message + err.Error(); s.warned[key] != text {
		s.warned[key] = text
		attributes := []any{"error", err}
		if hint != "" {
			attributes = append(attributes, "hint", hint)
		}
		s.log.Warn(message, attributes...)
	}
}

// Hint says how to give the agent a state directory.
const Hint = "set state_dir to a directory that only the agent's user can write to; in a container, mount a volume that belongs to that user at " + SystemDirectory
