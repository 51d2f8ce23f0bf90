package journal

import (
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
)

// Ledger keeps the journals of outputs up to date while their files change: one write
// before a file changes, and one after the reload. It must not be used concurrently.
type Ledger struct {
	store    *Store
	entries  map[string]*entryOf // by destination
	unsaved  map[string]bool
	retryAt  time.Time // of a write that has failed; zero if none has
	released []string  // leases of removed files
}

// entryOf is what is known of one output.
type entryOf struct {
	earlier Output // an earlier run has left in the file
	staged  Output // is about to be in the file
	inFile  Output // is in the file
	saved   Output // is in the journal
	// superseded are leases that no file holds any more, and that are not revoked yet.
	superseded []string

	isAnnounced bool // the file is about to change, which calls for a reload
	isOwed      bool // the file has changed, and the reload is not queued yet
	isQueued    bool // the reload is queued, and may not have happened
}

// retryAfter is how soon a journal is tried again that could not be written.
const retryAfter = 5 * time.Second

// NewLedger returns a ledger that knows no output.
func NewLedger(store *Store) *Ledger {
	l := &Ledger{entries: map[string]*entryOf{}, unsaved: map[string]bool{}}
	l.SetStore(store)
	return l
}

// SetStore has journals written to another store from now on. One in another directory
// holds nothing of this run yet.
func (l *Ledger) SetStore(store *Store) {
	if l.store != nil && l.store.Dir() != store.Dir() {
		for destination, e := range l.entries {
			e.saved = Output{}
			l.unsaved[destination] = true
		}
	}
	l.store = store
}

// Store is where journals are.
func (l *Ledger) Store() *Store { return l.store }

// Open reads the journal that an earlier run has left of an output, unless it is open.
func (l *Ledger) Open(destination string) {
	if l.entries[destination] != nil {
		return
	}
	saved := l.store.Output(destination)
	if saved.IsEmpty() {
		return
	}
	earlier := saved
	earlier.Leases = slices.Clone(saved.Leases)
	earlier.PendingReload = false
	l.entries[destination] = &entryOf{earlier: earlier, saved: saved, isOwed: saved.PendingReload}
}

// entry returns the entry of an output, which it makes if there is none.
func (l *Ledger) entry(destination string) *entryOf {
	e := l.entries[destination]
	if e == nil {
		e = &entryOf{}
		l.entries[destination] = e
	}
	return e
}

// Stage takes in what Vault has issued of content that is about to be in a file, and
// whether the change will call for a reload. [Ledger.SaveStaged] has to follow before the
// file changes.
func (l *Ledger) Stage(issued Output, isReload bool) {
	if issued.IsEmpty() && !isReload && l.entries[issued.Destination] == nil {
		return
	}
	e := l.entry(issued.Destination)
	e.staged = issued
	e.isAnnounced = isReload
}

// SaveStaged writes the journals of outputs that lack something of what was staged.
func (l *Ledger) SaveStaged(destinations []string) {
	l.save(slices.DeleteFunc(destinations, func(destination string) bool {
		e := l.entries[destination]
		return e == nil || e.saved.Covers(e.content())
	}))
}

// Conclude takes in whether staged content is in its file now, and whether the file has
// changed, which it may have in an attempt that has failed all the same.
func (l *Ledger) Conclude(destination string, isPublished, isChanged bool) {
	e := l.entries[destination]
	if e == nil {
		return
	}
	if isPublished {
		l.supersede(e, e.staged.Leases)
		e.inFile, e.staged = e.staged, Output{}
		e.earlier.Certificates, e.earlier.Contents = nil, nil
	}
	e.isOwed = e.isOwed || e.isAnnounced && isChanged
	e.isAnnounced = false
	l.unsaved[destination] = true
}

// IsReloadOwed reports whether a file has changed, in this run or an earlier one, without
// its reload being queued.
func (l *Ledger) IsReloadOwed(destination string) bool {
	e := l.entries[destination]
	return e != nil && e.isOwed
}

// Queue takes in that the reloads of a file, if there are any, are queued.
func (l *Ledger) Queue(destination string, hasReloads bool) {
	if l.entries[destination] == nil && !hasReloads {
		return
	}
	e := l.entry(destination)
	e.isQueued = e.isQueued || hasReloads
	e.isOwed = false
	l.unsaved[destination] = true
}

// NoteReloads takes in which files still have pending reloads.
func (l *Ledger) NoteReloads(isPending func(destination string) bool) {
	for destination, e := range l.entries {
		if e.isQueued && !isPending(destination) {
			e.isQueued = false
			l.unsaved[destination] = true
		}
	}
}

// supersede takes in that the file of an entry does not hold its leases any more, except
// some. Those that other files hold are not to be revoked: they are in the journals of these.
func (l *Ledger) supersede(e *entryOf, except []string) {
	isElsewhere := func(id string) bool {
		for _, other := range l.entries {
			if other != e && slices.Contains(other.inFile.Leases, id) {
				return true
			}
		}
		return false
	}
	var leases []string
	for _, id := range e.inFile.Leases {
		if !slices.Contains(except, id) && !isElsewhere(id) {
			leases = append(leases, id)
		}
	}
	e.supersede(leases)
}

// supersede takes in leases that no file holds any more.
func (e *entryOf) supersede(leases []string) {
	for _, id := range leases {
		if !slices.Contains(e.superseded, id) {
			e.superseded = append(e.superseded, id)
		}
	}
}

// NoteRemoved takes in that the file of an output was removed.
func (l *Ledger) NoteRemoved(destination string) {
	e := l.entries[destination]
	if e == nil {
		return
	}
	e.inFile = e.inFile.Union(e.staged)
	l.supersede(e, nil)
	e.inFile, e.staged = Output{}, Output{}
	e.earlier.Certificates, e.earlier.Contents = nil, nil
	l.unsaved[destination] = true
}

// NoteRevoked takes in that leases are revoked, or end by themselves.
func (l *Ledger) NoteRevoked(leases []string) {
	for destination, e := range l.entries {
		if len(e.superseded) > 0 {
			e.superseded = slices.DeleteFunc(e.superseded, func(id string) bool { return slices.Contains(leases, id) })
			l.unsaved[destination] = true
		}
	}
}

// HasSuperseded reports whether leases are still to be revoked that an output has held.
func (l *Ledger) HasSuperseded(destination string) bool {
	e := l.entries[destination]
	return e != nil && len(e.superseded) > 0
}

// Forget removes the journal of an output that is no more.
func (l *Ledger) Forget(destination string) {
	delete(l.entries, destination)
	delete(l.unsaved, destination)
	l.store.RemoveOutput(destination)
}

// Orphan makes orphans of the leases that an earlier run has left in the file of an
// output, which was removed.
func (l *Ledger) Orphan(destination string, asks func(lease string) bool) {
	e := l.entries[destination]
	if e == nil {
		return
	}
	for _, id := range e.earlier.Leases {
		if asks(id) {
			l.released = append(l.released, id)
			e.supersede([]string{id})
		}
	}
	e.earlier.Leases = nil
	l.unsaved[destination] = true
}

// Orphans returns the leases of earlier runs that no file holds any more, each once.
// isResolved says that this run has decided what is in a file, asks that an output asks for
// the path that a lease comes from: whatever a journal says, an output has no say in the
// leases of others.
func (l *Ledger) Orphans(isResolved func(destination string) bool, asks func(destination, lease string) bool) []string {
	held := map[string]bool{}
	var resolved []string
	for destination, e := range l.entries {
		switch {
		case len(e.earlier.Leases) == 0:
		case isResolved(destination):
			resolved = append(resolved, destination)
		default:
			for _, id := range e.earlier.Leases {
				held[id] = true
			}
		}
	}
	orphans := slices.DeleteFunc(l.released, func(id string) bool { return held[id] })
	l.released = nil
	slices.Sort(resolved)
	for _, destination := range resolved {
		e := l.entries[destination]
		var kept []string
		for _, id := range e.earlier.Leases {
			switch {
			case held[id]:
				kept = append(kept, id)
			case asks(destination, id):
				e.supersede([]string{id})
				if !slices.Contains(orphans, id) {
					orphans = append(orphans, id)
				}
			}
		}
		e.earlier.Leases = kept
		l.unsaved[destination] = true
	}
	return orphans
}

// content is what the journal of an output has to hold.
func (e *entryOf) content() Output {
	all := e.inFile.Union(e.earlier).Union(e.staged).Union(Output{Leases: e.superseded})
	all.PendingReload = e.isAnnounced || e.isOwed || e.isQueued
	return all
}

// isEmpty reports whether there is nothing to keep, and nothing in the journal.
func (e *entryOf) isEmpty() bool { return e.content().IsEmpty() && e.saved.IsEmpty() }

// isOutdated reports whether the journal lacks something, or holds what is over. A lease
// that is over does not count: revoking it once more does no harm.
func (e *entryOf) isOutdated() bool {
	content, saved := e.content(), e.saved
	saved.Leases = content.Leases
	return !e.saved.Covers(content) || !content.Covers(saved) || content.IsEmpty() && !e.saved.IsEmpty()
}

// Save brings all journals up to date that can be: one that could not be written is tried
// again at [Ledger.NextAttempt].
func (l *Ledger) Save(now time.Time) {
	if len(l.unsaved) == 0 || now.Before(l.retryAt) {
		return
	}
	var outdated []string
	for _, destination := range slices.Sorted(maps.Keys(l.unsaved)) {
		delete(l.unsaved, destination)
		switch e := l.entries[destination]; {
		case e == nil:
		case e.isOutdated():
			outdated = append(outdated, destination)
		case e.isEmpty():
			delete(l.entries, destination)
		}
	}
	l.save(outdated)
}

// SaveNow is [Ledger.Save] for an agent that ends: it does not wait for the next attempt.
func (l *Ledger) SaveNow() {
	l.retryAt = time.Time{}
	l.Save(time.Now())
}

// NextAttempt is when a journal is tried again that could not be written; zero if none is.
func (l *Ledger) NextAttempt() time.Time {
	if len(l.unsaved) == 0 {
		return time.Time{}
	}
	return l.retryAt
}

func (l *Ledger) save(destinations []string) {
	if len(destinations) == 0 {
		return
	}
	l.retryAt = time.Time{}
	var outputs []Output
	for _, destination := range destinations {
		content := l.entries[destination].content()
		content.Destination = destination
		outputs = append(outputs, content)
	}
	if !l.store.SaveOutputs(outputs...) {
		for _, destination := range destinations {
			l.unsaved[destination] = true
		}
		l.retryAt = time.Now().Add(retryAfter)
		return
	}
	for i, destination := range destinations {
		l.entries[destination].saved = outputs[i]
	}
}

// maxReadBack is the most bytes of an existing file that are read to recover a certificate.
const maxReadBack = 32 << 20

// Recovered is a certificate that an earlier run has left, as Vault has issued it.
type Recovered struct {
	Data             map[string]any
	Issued, NotAfter time.Time
}

// Recover returns the certificate that answers a request, from the files that an earlier
// run has left; request is the [Sum] of its fingerprint. ok is false if there is none, or
// if it has reached this share of its life.
func (l *Ledger) Recover(request string, share float64, now time.Time) (r Recovered, ok bool) {
	var files [][]byte
	var known []Certificate
	var holders []string
	for destination, e := range l.entries {
		if slices.ContainsFunc(e.earlier.Certificates, func(c Certificate) bool { return c.Request == request }) {
			holders = append(holders, destination)
		}
	}
	slices.Sort(holders)
	for _, destination := range holders {
		e := l.entries[destination]
		for _, c := range e.earlier.Certificates {
			if c.Request != request {
				continue
			}
			if content, ok := leftByUs(destination, e.earlier.Contents); ok {
				files, known = append(files, content), append(known, c)
			}
		}
	}
	for _, c := range known {
		data, notAfter, ok := c.Recover(files, now)
		if life := notAfter.Sub(c.Issued); ok && now.Sub(c.Issued) < time.Duration(share*float64(life)) {
			return Recovered{data, c.Issued, notAfter}, true
		}
	}
	return Recovered{}, false
}

// leftByUs reads the file that an earlier run has left. ok is false if its content is not
// what that run has written: the owner of the file or of its folder may have put a
// certificate or a key of their own there, or a link to somebody else's.
func leftByUs(destination string, sums []string) (content []byte, ok bool) {
	folder, err := drop.OpenFolder(filepath.Dir(destination))
	if err != nil {
		return nil, false
	}
	defer func() { _ = folder.Close() }()
	content, err = safefile.ReadIn(folder, filepath.Base(destination), maxReadBack)
	if err != nil || !slices.Contains(sums, Sum(content)) {
		return nil, false
	}
	return content, true
}
