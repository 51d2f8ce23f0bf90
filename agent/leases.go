package agent

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// This file is what a dropper knows of leases and certificates: what was issued
// for which file, what an earlier run has left there, and what may go.

// keepRecord writes down what the file is about to hold, before it does: what
// is issued from here on is never forgotten.
func (d *dropper) keepRecord(s *state) error {
	next := d.issuedTo(s)
	all := next.and(s.record())
	if all.isEmpty() || reflect.DeepEqual(next, s.filed) && s.wrote {
		return nil
	}
	if s.drop.CreateDirs {
		if err := d.plan.Make(filepath.Dir(s.drop.Destination)); err != nil {
			return err
		}
	}
	return all.write(s.drop.Destination)
}

// record is what stands beside the file.
func (s *state) record() record {
	return s.filed.and(s.orphaned).and(record{Untold: s.untold})
}

// issuedTo is what Vault has issued among what the drop uses.
func (d *dropper) issuedTo(s *state) record {
	var r record
	for _, request := range s.uses {
		r.note(request, d.readings[request])
	}
	return r
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
		s.orphaned.Leases = slices.DeleteFunc(s.orphaned.Leases, func(id string) bool {
			if !pending[id] && !slices.Contains(out.Orphans, id) {
				out.Orphans = append(out.Orphans, id)
			}
			return !pending[id]
		})
	}
	return out
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
	var known []certificate
	for _, s := range d.states {
		for _, c := range s.orphaned.Certificates {
			if content, err := os.ReadFile(s.drop.Destination); err == nil && c.Request == hash {
				files, known = append(files, content), append(known, c)
			}
		}
	}
	for _, c := range known {
		reading, ok := recoverCertificate(r, c, files, time.Now())
		if ok && time.Since(c.Issued) < time.Duration(share*float64(reading.Life.NotAfter.Sub(c.Issued))) {
			return reading, true
		}
	}
	return watch.Reading{}, false
}
