package agent

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/internal/journal"
	"github.com/smarteros/deaddrop/agent/internal/output"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// issued returns what Vault has issued of the content of a file, for its journal.
func (p *pipeline) issued(file output.RenderedFile) journal.Output {
	o := journal.Output{Destination: file.Drop.Destination}
	for _, request := range file.Requests() {
		reading, _ := p.readings.Reading(request)
		switch life := reading.Life; {
		case reading.Secret == nil:
		case life.Lease != nil && life.Lease.ID != "":
			o.Leases = append(o.Leases, life.Lease.ID)
		case !life.NotAfter.IsZero():
			serial, _ := reading.Secret.Data.Reveal()["serial_number"].(string)
			o.Certificates = append(o.Certificates, journal.Certificate{Request: hashOf(request), Serial: plainSerial(serial), Issued: life.Issued})
		}
	}
	if len(o.Certificates) > 0 {
		o.Contents = []string{journal.Sum(file.Content)}
	}
	return o
}

func hashOf(r render.Request) string { return journal.Sum([]byte(r.Fingerprint())) }

// plainSerial turns Vault's 0a:1b into a1b.
func plainSerial(text string) string {
	return strings.TrimLeft(strings.ReplaceAll(text, ":", ""), "0")
}

// settled returns which leases stand in files, and which of an earlier run do not stand in
// any file now.
func (p *pipeline) settled() watch.Settled {
	var settled watch.Settled
	for _, o := range p.outputs.Outputs() {
		if content := o.Content(); content != nil {
			settled.InFiles = append(settled.InFiles, content.Leases...)
		}
	}
	isResolved := func(destination string) bool {
		o := p.outputs.Owner(destination)
		return o != nil && o.IsResolved() // Files stay that are no longer in the configuration.
	}
	settled.Orphans = p.ledger.Orphans(isResolved, func(destination, lease string) bool {
		return p.asks(p.outputs.Owner(destination), lease)
	})
	return settled
}

// asks reports whether a lease comes from a path that an output asks for. Whatever a journal
// says, an output has no say in the leases of others.
func (p *pipeline) asks(o *output.Output, lease string) bool {
	isAsked := slices.ContainsFunc(p.outputs.Requests(o), func(r render.Request) bool {
		path, _, _ := strings.Cut(r.Path, "?")
		// A namespace may stand in front of the path, but not of the id.
		return strings.HasSuffix("/"+strings.Trim(path, "/"), "/"+filepath.Dir(lease))
	})
	if !isAsked {
		p.log.Warn("lease not revoked, its output does not ask for it", "destination", o.Drop.Destination, "lease", lease)
	}
	return isAsked
}

// revokeUnused revokes, at the end of a single run, the leases that stand in no file. Those
// that do are kept, with the token that they depend on.
func (p *pipeline) revokeUnused(ctx context.Context, reader watch.Reader) {
	settled := p.settled()
	kept := map[*watch.Lease]bool{}
	for _, lease := range settled.InFiles {
		kept[lease] = true
	}
	unused := map[*watch.Lease]bool{}
	for _, reading := range p.readings.All() {
		if lease := reading.Life.Lease; lease != nil && !kept[lease] {
			unused[lease] = true
		}
	}
	for _, id := range settled.Orphans {
		unused[&watch.Lease{ID: id}] = true
	}
	var revoked []string
	for lease := range unused {
		if err := lease.Revoke(ctx, reader); err != nil {
			p.log.Warn("a lease that no file holds was not revoked; it ends by itself", "lease", lease.ID, "error", err)
		} else if lease.ID != "" {
			p.log.Info("lease revoked", "lease", lease.ID)
		}
		revoked = append(revoked, lease.ID)
	}
	p.ledger.NoteRevoked(revoked)
	if len(kept) > 0 {
		p.log.Info("the token is not revoked, since leases depend on it", "leases", len(kept))
	}
}

// recoverCertificates answers requests that are unresolved from certificates in files that
// an earlier run has left, and that have not reached this share of their lives.
func (p *pipeline) recoverCertificates(share float64) watch.Batch {
	found := watch.Batch{}
	for _, request := range p.readings.Unresolved() {
		if !request.Writes() {
			continue
		}
		if c, ok := p.ledger.Recover(hashOf(request), share, time.Now()); ok {
			found[request] = watch.Reading{
				Secret: &render.Secret{Path: request.Path, Data: secret.Of(c.Data)},
				Life:   watch.Life{Issued: c.Issued, NotAfter: c.NotAfter, TTL: c.NotAfter.Sub(c.Issued)},
			}
		}
	}
	p.learn(found)
	return found
}
