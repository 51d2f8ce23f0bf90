// Package tenants tracks which tenants one for_each block has, and reports changes as
// events. The caller reads the list of tenants and acts on the events: the package knows
// neither Vault nor files nor reloads.
//
//	          Added             Departed              Forget
//	unknown ────────▶ present ───────────▶ departed ─────────▶ unknown
//	                          ◀───────────   │  ▲
//	                            Returned     └──┘ Expired
//
// Expired allows the caller to remove files. These rules make it safe:
//
//   - Expired is reported only while the list is certain: it was read in this run, and
//     reading it has not failed since. A tenant that a failing Vault does not list may
//     still be a customer.
//   - Expired is reported only once the grace period since the departure is over. Nothing
//     but a return changes the time of a departure, so that restarts and failed removals
//     neither shorten nor prolong the grace period.
//   - An expired tenant stays departed until [Block.Forget]. The next agent removes the
//     files of a tenant if this one is killed while it does.
//   - Names that are no tenant ids never get into a block, whether Vault or a journal has
//     them: an id becomes a part of paths.
//
// The caller journals [Block.Present] and [Block.Departed] after each [Block.Update], before
// it writes files of an added tenant, and after each [Block.Forget]. A tenant that is not in
// the journal leaves its files behind if it departs while no agent runs.
package tenants

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/tenant"
)

// Kind says what has happened to a tenant.
type Kind int

const (
	// Added is reported of a listed tenant that the block did not know.
	Added Kind = iota
	// Departed is reported of a present tenant that is not listed any more, or not wanted.
	Departed
	// Returned is reported of a departed tenant that is listed again. Its files are still
	// there unless it has expired.
	Returned
	// Expired is reported of a departed tenant whose grace period is over.
	Expired
)

// String returns the kind in lower case, for logs.
func (k Kind) String() string {
	return [...]string{"added", "departed", "returned", "expired"}[k]
}

// Event is a change of one tenant.
type Event struct {
	Kind   Kind
	Tenant string
}

// Options are what the configuration says about the tenants of a block.
type Options struct {
	// Grace is the time from the departure of a tenant until it expires.
	Grace time.Duration
	// KeepFiles lets the files of departed tenants stay for ever. A block forgets a tenant
	// as it departs then: Departed is its last event, and Added reports its return.
	KeepFiles bool
	// Wants reports whether the block is for a tenant. If it is nil, the block is for all.
	Wants func(id string) bool
}

// Block tracks the tenants of one for_each block. It is not safe for concurrent use.
type Block struct {
	options   Options
	present   map[string]bool
	departed  map[string]departure // no tenant of present; empty if the files are kept
	invalid   map[string]bool      // the names of the last list that are no ids
	isResumed bool
	isKnown   bool
	err       error
}

// departure is what is known of a departed tenant.
type departure struct {
	// since has a monotonic clock reading, so that setting the clock does not end a grace
	// period.
	since time.Time
	// postponed is when a removal that has failed is due again, or zero.
	postponed time.Time
}

// New returns a block of which no tenants are known.
func New(o Options) *Block {
	return &Block{options: o, present: map[string]bool{}, departed: map[string]departure{}}
}

// Restore returns a block with the tenants of an earlier run: those that were present, and
// those that had departed, and when. It reports no events of them; the caller sets up what
// [Block.Present] and [Block.Departed] return. A list has not been read in this run yet.
//
// A departure in the future counts as one of now, since the clock was wrong then or is wrong
// now. A tenant that is both present and departed counts as present.
func Restore(o Options, present []string, departed map[string]time.Time) *Block {
	b := New(o)
	b.isResumed = true
	for _, id := range present {
		if tenant.CheckID(id) == nil {
			b.present[id] = true
		}
	}
	now := time.Now()
	for id, since := range departed {
		if tenant.CheckID(id) == nil && !b.present[id] && !o.KeepFiles {
			b.departed[id] = departure{since: now.Add(-max(0, now.Sub(since)))} // with the monotonic clock of now
		}
	}
	return b
}

// WithOptions returns the block as a changed configuration describes it. b stays as it is, so
// that the change can still be refused. All tenants carry over, except that KeepFiles
// forgets departed ones. A tenant that is not wanted any more departs at the next
// [Block.Update]. A changed grace period counts from the departure.
//
// isSameList says that the list is read from the same folder as before, or that both
// configurations list the tenants themselves. Otherwise no list has been read yet.
func (b *Block) WithOptions(o Options, isSameList bool) *Block {
	next := New(o)
	next.isResumed = true
	maps.Copy(next.present, b.present)
	if !o.KeepFiles {
		maps.Copy(next.departed, b.departed)
	}
	if isSameList {
		next.invalid, next.isKnown, next.err = b.invalid, b.isKnown, b.err
	}
	return next
}

// Update takes a list that was read: names in a folder of Vault, where folders end in "/",
// or the ids of the configuration. A folder and a secret of one name are one tenant. The
// list is certain from now on, so an empty one means that all tenants have departed.
//
// It returns the events Added, Departed and Returned, by tenant. invalid has an error for
// each wanted name that is no tenant id, except those that the list before had as well.
func (b *Block) Update(names []string) (events []Event, invalid []error) {
	b.isKnown, b.err = true, nil
	listed, invalid := b.check(names)
	for id := range listed {
		if b.present[id] {
			continue
		}
		kind := Added
		if _, isDeparted := b.departed[id]; isDeparted {
			kind = Returned
			delete(b.departed, id)
		}
		b.present[id] = true
		events = append(events, Event{kind, id})
	}
	now := time.Now()
	for id := range b.present {
		if listed[id] {
			continue
		}
		delete(b.present, id)
		if !b.options.KeepFiles {
			b.departed[id] = departure{since: now}
		}
		events = append(events, Event{Departed, id})
	}
	slices.SortFunc(events, func(x, y Event) int { return cmp.Compare(x.Tenant, y.Tenant) })
	return events, invalid
}

// check returns the wanted tenants of a list, and errors of names that are no ids and that
// the list before did not have.
func (b *Block) check(names []string) (listed map[string]bool, invalid []error) {
	before := b.invalid
	listed, b.invalid = map[string]bool{}, map[string]bool{}
	for _, name := range slices.Sorted(slices.Values(names)) {
		id := strings.TrimSuffix(name, "/")
		if b.options.Wants != nil && !b.options.Wants(id) {
			continue
		}
		err := tenant.CheckID(id)
		if err == nil {
			listed[id] = true
			continue
		}
		if !before[id] && !b.invalid[id] {
			invalid = append(invalid, err)
		}
		b.invalid[id] = true
	}
	return listed, invalid
}

// errUnread is the error of a list that cannot be read for a reason that is not known.
var errUnread = errors.New("listing tenants: the list cannot be read")

// Fail notes that the list cannot be read. All tenants stay as they are, and none expires
// until the next [Block.Update]: the last list may be out of date.
func (b *Block) Fail(err error) {
	if err == nil {
		err = errUnread // Without an error the list would count as certain.
	}
	b.err = err
}

// isCertain reports whether the last list can be trusted for removing files.
func (b *Block) isCertain() bool { return b.isKnown && b.err == nil }

// Expire returns an event Expired, by tenant, of each departed tenant whose grace period is
// over, and none unless the list is certain. It returns a tenant each time until the caller
// reports what came of the removal, with [Block.Forget] or [Block.Postpone].
func (b *Block) Expire() []Event {
	if !b.isCertain() {
		return nil
	}
	var events []Event
	now := time.Now()
	for _, id := range slices.Sorted(maps.Keys(b.departed)) {
		if !b.expiry(id).After(now) {
			events = append(events, Event{Expired, id})
		}
	}
	return events
}

// expiry is when a departed tenant expires if the list is certain then.
func (b *Block) expiry(id string) time.Time {
	d := b.departed[id]
	end := d.since.Add(b.options.Grace)
	if d.postponed.After(end) {
		return d.postponed
	}
	return end
}

// NextExpiry is when [Block.Expire] has an event next. It is in the past if it has one
// already, and zero if none departed or the list is not certain.
func (b *Block) NextExpiry() time.Time {
	var next time.Time
	if !b.isCertain() {
		return next
	}
	for id := range b.departed {
		if at := b.expiry(id); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// Postpone notes that the files of an expired tenant could not be removed. [Block.Expire]
// reports the tenant again at until, unless it returns before; the next agent tries at once.
// The time of the departure does not change. Postpone does nothing for a tenant that is not
// departed, and does not end a grace period early.
func (b *Block) Postpone(id string, until time.Time) {
	if d, isDeparted := b.departed[id]; isDeparted {
		d.postponed = until
		b.departed[id] = d
	}
}

// Forget notes that a departed tenant has no files, or none any more. If it is listed again,
// it is a new one. Forget does nothing for a present tenant: it may have returned while its
// files were removed.
func (b *Block) Forget(id string) { delete(b.departed, id) }

// IsKnown reports whether a list was read in this run. Reading it may have failed since.
func (b *Block) IsKnown() bool { return b.isKnown }

// IsResumed reports whether an earlier run, or the configuration before, had this block.
// Services may have seen then that the files of an added tenant are missing.
func (b *Block) IsResumed() bool { return b.isResumed }

// Err is why the list cannot be read, or nil.
func (b *Block) Err() error { return b.err }

// Present returns the tenants that are listed, or were when a list was last read, in order.
func (b *Block) Present() []string { return slices.Sorted(maps.Keys(b.present)) }

// Departed returns the departed tenants that are not forgotten yet, and when each of them
// has departed, in UTC.
func (b *Block) Departed() map[string]time.Time {
	all := make(map[string]time.Time, len(b.departed))
	for id, d := range b.departed {
		all[id] = d.since.UTC()
	}
	return all
}
