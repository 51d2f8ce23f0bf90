package agent

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/drop"
	"github.com/smarteros/deaddrop/render/safefile"
	"github.com/smarteros/deaddrop/render/secret"
)

// This file is what a dropper knows of leases and certificates: what was issued
// for which file, what an earlier run has left there, and what may go.

// openJournal opens the store of what earlier runs have left. One in another directory than
// before holds nothing of this run yet.
func (d *dropper) openJournal(stateDir string) {
	dir, err := journal.Directory(stateDir)
	if err != nil && !errors.Is(err, journal.ErrNoDirectory) {
		d.log.Warn("state directory cannot be used", "error", err, "hint", journal.Hint)
	}
	if d.journal != nil && d.journal.Dir() != dir {
		for _, s := range d.states {
			s.saved = journal.Output{}
		}
		for _, f := range d.followed {
			f.written = ""
		}
	}
	d.journal = journal.Open(dir, err, d.log)
	d.journal.ReadOnly = d.dry
}

// keepIssued writes down what files are about to hold, before they do and before a check
// looks at it: what is issued from here on is not forgotten.
func (d *dropper) keepIssued(ready []rendered) {
	var changed []*state
	for _, r := range ready {
		for i, s := range r.states {
			s.sum = ""
			issued := d.issuedTo(s)
			if len(issued.Certificates) > 0 {
				s.sum = journal.Sum(r.contents[i])
				issued.Contents = []string{s.sum}
			}
			if !s.saved.Covers(issued) {
				changed = append(changed, s)
			}
		}
	}
	d.save(changed, d.toKeep)
}

// toKeep is what the journal of the output has to hold before the file changes.
func (d *dropper) toKeep(s *state) journal.Output { return d.issuedTo(s).Union(s.kept()) }

// save writes the journals of outputs. What fails is tried again when it is saved the next
// time.
func (d *dropper) save(states []*state, kept func(*state) journal.Output) {
	var outputs []journal.Output
	for _, s := range states {
		outputs = append(outputs, kept(s))
	}
	if !d.journal.SaveOutputs(outputs...) {
		return
	}
	for i, s := range states {
		s.saved = outputs[i]
	}
}

// kept is what the journal of the output holds.
func (s *state) kept() journal.Output {
	kept := s.filed.Union(s.orphaned).Union(journal.Output{PendingReload: s.untold})
	kept.Destination = s.drop.Destination
	return kept
}

// isOutdated reports whether the journal lacks something, or holds what is over. A lease
// that is over does not count: revoking it once more does no harm.
func (s *state) isOutdated() bool {
	if s.filed.IsEmpty() && s.orphaned.IsEmpty() && s.saved.IsEmpty() && !s.untold {
		return false // As of most outputs, which are asked each time that anything happens.
	}
	kept := s.kept()
	current := s.saved
	current.Leases = kept.Leases
	return !s.saved.Covers(kept) || !kept.Covers(current) || kept.IsEmpty() && !s.saved.IsEmpty()
}

// issuedTo is what Vault has issued among what the drop uses.
func (d *dropper) issuedTo(s *state) journal.Output {
	o := journal.Output{Destination: s.drop.Destination}
	for _, request := range s.uses {
		note(&o, request, d.readings[request])
	}
	if len(o.Certificates) > 0 && s.sum != "" {
		o.Contents = []string{s.sum}
	}
	return o
}

// note adds the reading of a request to a journal.
func note(o *journal.Output, request render.Request, reading watch.Reading) {
	switch life := reading.Life; {
	case reading.Secret == nil:
	case life.Lease != nil && life.Lease.ID != "":
		o.Leases = append(o.Leases, life.Lease.ID)
	case !life.NotAfter.IsZero():
		serial, _ := reading.Secret.Data.Reveal()["serial_number"].(string)
		o.Certificates = append(o.Certificates, journal.Certificate{Request: hashOf(request), Serial: plainSerial(serial), Issued: life.Issued})
	}
}

func hashOf(r render.Request) string { return journal.Sum([]byte(r.Fingerprint())) }

// plainSerial turns Vault's 0a:1b into a1b.
func plainSerial(text string) string {
	return strings.TrimLeft(strings.ReplaceAll(text, ":", ""), "0")
}

// settled tells which leases stand in files, and which of an earlier run do not
// stand in any file now.
func (d *dropper) settled() watch.Settled {
	var out watch.Settled
	pending := map[string]bool{}
	for _, s := range d.states {
		out.InFiles = append(out.InFiles, s.leases...)
		if s.isCurrent() && !s.isGone { // The files of a tenant that is gone stand for a while.
			continue
		}
		for _, id := range s.orphaned.Leases {
			pending[id] = true
		}
	}
	out.Orphans, d.released = slices.DeleteFunc(d.released, func(id string) bool { return pending[id] }), nil
	for _, s := range d.states {
		var over []string
		s.orphaned.Leases = slices.DeleteFunc(s.orphaned.Leases, func(id string) bool {
			if !pending[id] {
				over = append(over, id)
			}
			return !pending[id]
		})
		for _, id := range d.asked(s, over) {
			if !slices.Contains(out.Orphans, id) {
				out.Orphans = append(out.Orphans, id)
			}
		}
	}
	return out
}

// asked returns those leases of an earlier run that come from a path that the output
// asks for. Others are not revoked: whatever a journal says, an output has no say in the
// leases of others.
func (d *dropper) asked(s *state, leases []string) []string {
	if len(leases) == 0 {
		return nil
	}
	uses := s.uses
	if uses == nil && s.drop.Template != nil {
		// A tenant that has departed meanwhile was not rendered in this run.
		result, _ := s.drop.Template.Execute(d.input(s, nil, func(render.Request) *render.Secret { return nil }))
		uses = result.Uses
	}
	if s.drop.Secret != "" {
		uses = append(slices.Clone(uses), render.Read(s.drop.Secret))
	}
	return slices.DeleteFunc(slices.Clone(leases), func(id string) bool {
		isAsked := slices.ContainsFunc(uses, func(r render.Request) bool {
			path, _, _ := strings.Cut(r.Path, "?")
			// A namespace may stand in front of the path, but not of the id.
			return strings.HasSuffix("/"+strings.Trim(path, "/"), "/"+filepath.Dir(id))
		})
		if !isAsked {
			d.log.Warn("lease not revoked, its output does not ask for it", "destination", s.drop.Destination, "lease", id)
		}
		return !isAsked
	})
}

// letGo revokes, at the end of a single run, what stands in no file. What does
// is kept, with the token that it depends on.
func (d *dropper) letGo(ctx context.Context, reader watch.Reader) {
	settled := d.settled()
	kept := map[*watch.Lease]bool{}
	for _, l := range settled.InFiles {
		kept[l] = true
	}
	doomed := map[*watch.Lease]bool{}
	for _, reading := range d.readings {
		if l := reading.Life.Lease; l != nil && !kept[l] {
			doomed[l] = true
		}
	}
	for _, id := range settled.Orphans {
		doomed[&watch.Lease{ID: id}] = true
	}
	for l := range doomed {
		if err := l.Revoke(ctx, reader); err != nil {
			d.log.Warn("a lease that no file holds was not revoked; it ends by itself", "lease", l.ID, "error", err)
		} else if l.ID != "" {
			d.log.Info("lease revoked", "lease", l.ID)
		}
	}
	if len(kept) > 0 {
		d.log.Info("the token is not revoked, since leases depend on it", "leases", len(kept))
	}
}

// recovered are answers to what is lacking, from certificates in the files that
// an earlier run has left and that have not reached this share of their lives.
func (d *dropper) recovered(share float64) map[render.Request]watch.Reading {
	found := map[render.Request]watch.Reading{}
	for _, r := range d.lacking() {
		if reading, ok := d.recover(r, share); ok {
			found[r] = reading
		}
	}
	d.learn(found)
	return found
}

func (d *dropper) recover(r render.Request, share float64) (watch.Reading, bool) {
	if !r.Writes() {
		return watch.Reading{}, false
	}
	hash := hashOf(r)
	var files [][]byte
	var known []journal.Certificate
	for _, s := range d.states {
		for _, c := range s.orphaned.Certificates {
			if c.Request != hash {
				continue
			}
			if content, ok := s.leftByUs(); ok {
				files, known = append(files, content), append(known, c)
			}
		}
	}
	for _, c := range known {
		data, notAfter, ok := c.Recover(files, time.Now())
		if life := notAfter.Sub(c.Issued); ok && time.Since(c.Issued) < time.Duration(share*float64(life)) {
			return watch.Reading{
				Secret: &render.Secret{Path: r.Path, Data: secret.Of(data)},
				Life:   watch.Life{Issued: c.Issued, NotAfter: notAfter, TTL: life},
			}, true
		}
	}
	return watch.Reading{}, false
}

// maxReadBack is the most bytes of an existing file that are read, to recover a certificate
// or to compare.
const maxReadBack = 32 << 20

// leftByUs reads the file that an earlier run has left. ok is false if its content is not
// what that run has written: whoever owns the file or its folder may have put a
// certificate or a key of their own there, or a link to somebody else's.
func (s *state) leftByUs() (content []byte, ok bool) {
	folder, err := drop.OpenFolder(filepath.Dir(s.drop.Destination))
	if err != nil {
		return nil, false
	}
	defer func() { _ = folder.Close() }()
	content, err = safefile.ReadIn(folder, filepath.Base(s.drop.Destination), maxReadBack)
	if err != nil || !slices.Contains(s.orphaned.Contents, journal.Sum(content)) {
		return nil, false
	}
	return content, true
}
