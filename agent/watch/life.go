package watch

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/smarteros/deaddrop/render"
)

// Life says how long an answer of Vault is good for. The zero Life is that of a
// secret that may change at any time and is looked at once per interval.
type Life struct {
	// Look is how soon to look again at a secret without a life of its own, at
	// the latest; 0 leaves it to the interval.
	Look time.Duration
	// Lease is set for what ends unless it is renewed.
	Lease *Lease
	// Issued and NotAfter are set for a certificate: by the clock on the wall,
	// as others will judge it. TTL is how long it could be used when it was
	// issued.
	Issued, NotAfter time.Time
	TTL              time.Duration
	// Once is set for the answer to a write that says nothing of its life. It
	// is not asked for again, as that might have effects.
	Once bool
}

// Lease is Vault's promise to keep what it has issued alive.
type Lease struct {
	// ID is Vault's name of the lease; "" for what has a time to live, but
	// cannot be renewed or revoked.
	ID        string
	TTL       time.Duration
	Renewable bool
	// Token is what the lease was issued to and will end with; nil for the
	// lease of an earlier run.
	Token Token

	granted time.Time // the start of TTL
}

// Token is what a watcher needs of a token of package session.
type Token interface {
	Life() (ends time.Time, retired bool)
	Release()
}

func (l *Lease) release() {
	if l.Token != nil {
		l.Token.Release()
	}
}

// Shares are the parts of a life at which something is issued anew.
type Shares struct {
	// Lease is for what cannot be renewed any more, Cert for certificates.
	Lease, Cert float64
}

// Revoke ends the lease, where it has an id, and gives its token back.
func (l *Lease) Revoke(ctx context.Context, reader Reader) error {
	defer l.release()
	if l.ID == "" {
		return nil
	}
	return reader.Revoke(ctx, l)
}

// The share of a lease after which it is renewed, and the spread of all shares:
// each time is drawn from the last part before it.
const (
	renewShare   = 2.0 / 3
	shareSpread  = 0.055
	shortestTerm = time.Second
)

// part is a share of d, somewhat less, so that agents do not act in step.
func part(d time.Duration, share float64) time.Duration {
	return max(shortestTerm, time.Duration(float64(d)*share*(1-shareSpread*rand.Float64())))
}

// lifeOf tells the life of an answer without a lease. Engines say it in their
// own ways: a certificate by itself, a static role by the time to its next
// rotation, others by a time to live.
func lifeOf(r render.Request, s *render.Secret, now time.Time) Life {
	data := s.Data.Reveal()
	if cert, err := leaf(data); err == nil {
		return Life{Issued: now, NotAfter: cert.NotAfter, TTL: usable(cert, now)}
	}
	ttl, timed := seconds(data["ttl"])
	switch {
	case rotates(data) && timed:
		return Life{Look: ttl + time.Second} // Vault rotates when it is 0.
	case timed && ttl > 0:
		return Life{Lease: &Lease{TTL: ttl}}
	}
	return Life{Once: r.Writes(), Look: time.Duration(s.LeaseDuration) * time.Second}
}

// backdated is by how much Vault's PKI lets a certificate begin before its time
// unless told otherwise, for clocks that are late.
const backdated = 30 * time.Second

// usable is how long a new certificate can be used. The clock on the wall and
// the certificate both tell; the shorter one counts, unless this clock is so far
// ahead that nothing would seem to be valid.
func usable(cert *x509.Certificate, now time.Time) time.Duration {
	whole, left := cert.NotAfter.Sub(cert.NotBefore), cert.NotAfter.Sub(now)
	life := whole - backdated
	if life <= 0 {
		life = whole
	}
	if left > 0 {
		life = min(life, left)
	}
	return max(life, whole/60)
}

// rotates recognises a static role, whose password Vault changes on a schedule.
func rotates(data map[string]any) bool {
	return data["rotation_period"] != nil || data["rotation_schedule"] != nil
}

func seconds(v any) (time.Duration, bool) {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	n, err := strconv.ParseInt(text, 10, 32)
	return time.Duration(n) * time.Second, err == nil && n >= 0
}

var errNoCertificate = errors.New("there is no certificate")

// leaf reads the certificate that an answer of PKI holds.
func leaf(data map[string]any) (*x509.Certificate, error) {
	text, _ := data["certificate"].(string)
	if _, serial := data["serial_number"].(string); !serial {
		return nil, errNoCertificate
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errNoCertificate
	}
	return x509.ParseCertificate(block.Bytes)
}

// schedule is when something has to be done about a secret that has been read.
// Times without a wall clock count by the monotonic one, which does not jump.
type schedule struct {
	renew   time.Time // zero for never, as are the others
	reissue time.Time
	onWall  time.Time // reissue by the clock on the wall
	share   float64   // of the time to reissue
	look    time.Time // at a static secret
}

// plan makes the schedule of an answer to what was asked now. tick is when static
// secrets are looked at next.
func plan(life Life, shares Shares, now, wall, tick time.Time) schedule {
	switch {
	case life.Lease != nil:
		return planLease(life.Lease, shares.Lease, now)
	case !life.NotAfter.IsZero():
		return planCertificate(life, shares.Cert, now, wall)
	case life.Once:
		return schedule{}
	}
	look := tick
	if sooner := now.Add(life.Look); life.Look > 0 && sooner.Before(tick) {
		look = sooner
	}
	return schedule{look: look}
}

func planLease(l *Lease, share float64, now time.Time) schedule {
	l.granted = now
	s := schedule{share: share, reissue: now.Add(part(l.TTL, share))}
	if l.Renewable {
		s.renew = now.Add(part(l.TTL, renewShare))
	}
	return s
}

// planCertificate goes by the clock on the wall, too, unless that says that the
// certificate has ended already.
func planCertificate(life Life, share float64, now, wall time.Time) schedule {
	at := part(life.TTL, share)
	if !wall.Before(life.NotAfter) {
		return schedule{reissue: now.Add(at)}
	}
	onWall := life.Issued.Add(at)
	return schedule{reissue: now.Add(max(0, onWall.Sub(wall))), onWall: onWall}
}

// due tells when to act, and whether that is sure: a lease ends with its token,
// but only a token that was replaced is certain to end.
func (s schedule) due(l *Lease, now, wall time.Time) (at time.Time, sure bool) {
	for _, t := range []time.Time{s.renew, s.reissue, s.look} {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if !s.onWall.IsZero() && !wall.Before(s.onWall) {
		return now, true
	}
	limit, sure := s.tokenLimit(l)
	if limit.IsZero() || !at.IsZero() && at.Before(limit) {
		return at, true
	}
	return limit, sure
}

// tokenLimit is when a lease has to be issued anew because its token ends.
func (s schedule) tokenLimit(l *Lease) (at time.Time, sure bool) {
	if l == nil || l.Token == nil {
		return time.Time{}, true
	}
	ends, retired := l.Token.Life()
	if ends.IsZero() || !ends.Before(l.granted.Add(l.TTL)) {
		return time.Time{}, true
	}
	return l.granted.Add(time.Duration(float64(ends.Sub(l.granted)) * s.share)), retired
}

// mayRenew tells whether what is due is a renewal.
func (s schedule) mayRenew(l *Lease, now time.Time) bool {
	if l == nil || s.renew.IsZero() || !now.Before(s.reissue) {
		return false
	}
	limit, retired := s.tokenLimit(l)
	return limit.IsZero() || !retired || now.Before(limit)
}
