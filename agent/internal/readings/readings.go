// Package readings keeps the last reading of each request, and who uses it. It answers
// which requests are unresolved, and whom a change concerns.
package readings

import (
	"cmp"
	"maps"
	"slices"

	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

// Cache keeps readings for users of type U, such as outputs. It must not be used
// concurrently.
type Cache[U comparable] struct {
	readings watch.Batch
	uses     map[U]uses
	users    map[render.Request][]U // that are concerned by a change
	ordered  []render.Request       // nil after uses have changed
}

// uses are the requests of one user.
type uses struct {
	renders []render.Request
	holds   []render.Request
}

// New returns a cache that knows no reading and no user.
func New[U comparable]() *Cache[U] {
	return &Cache[U]{readings: watch.Batch{}, uses: map[U]uses{}, users: map[render.Request][]U{}}
}

// SetUses replaces the requests of a user: those that it renders, a change of which
// concerns it, and those that it only holds, such as the leases of what stands in a file
// that could not be replaced yet. The cache keeps the slices.
func (c *Cache[U]) SetUses(user U, renders, holds []render.Request) {
	before := c.uses[user]
	if slices.Equal(before.renders, renders) && slices.Equal(before.holds, holds) {
		return
	}
	for _, request := range before.renders {
		rest := slices.DeleteFunc(c.users[request], func(other U) bool { return other == user })
		if c.users[request] = rest; len(rest) == 0 {
			delete(c.users, request)
		}
	}
	for _, request := range renders {
		if !slices.Contains(c.users[request], user) {
			c.users[request] = append(c.users[request], user)
		}
	}
	if len(renders)+len(holds) == 0 {
		delete(c.uses, user)
	} else {
		c.uses[user] = uses{renders, holds}
	}
	c.ordered = nil
}

// Remove forgets a user.
func (c *Cache[U]) Remove(user U) { c.SetUses(user, nil, nil) }

// Learn takes readings in, and returns the users that they concern, each once, in no
// particular order.
func (c *Cache[U]) Learn(batch watch.Batch) []U {
	var concerned []U
	seen := map[U]bool{}
	for request, reading := range batch {
		c.readings[request] = reading
		for _, user := range c.users[request] {
			if !seen[user] {
				seen[user] = true
				concerned = append(concerned, user)
			}
		}
	}
	return concerned
}

// Reading returns the last reading of a request; ok is false if there is none yet.
func (c *Cache[U]) Reading(request render.Request) (reading watch.Reading, ok bool) {
	reading, ok = c.readings[request]
	return reading, ok
}

// All returns the readings of all requests. The caller must not change it.
func (c *Cache[U]) All() watch.Batch { return c.readings }

// Users returns those whom a change of a request concerns. The caller must not change it.
func (c *Cache[U]) Users(request render.Request) []U { return c.users[request] }

// Requests returns the requests of all users, each once, in an order that does not depend
// on the users. The caller must not change it.
func (c *Cache[U]) Requests() []render.Request {
	if c.ordered == nil {
		all := map[render.Request]bool{}
		for _, uses := range c.uses {
			for _, request := range uses.renders {
				all[request] = true
			}
			for _, request := range uses.holds {
				all[request] = true
			}
		}
		c.ordered = slices.SortedFunc(maps.Keys(all), byFingerprint)
		if c.ordered == nil {
			c.ordered = []render.Request{}
		}
	}
	return c.ordered
}

// Unresolved returns the requests that have no reading yet.
func (c *Cache[U]) Unresolved() []render.Request {
	var unresolved []render.Request
	for _, request := range c.Requests() {
		if _, known := c.readings[request]; !known {
			unresolved = append(unresolved, request)
		}
	}
	return unresolved
}

// Prune forgets the readings that nobody uses any more.
func (c *Cache[U]) Prune() {
	used := map[render.Request]bool{}
	for _, request := range c.Requests() {
		used[request] = true
	}
	maps.DeleteFunc(c.readings, func(request render.Request, _ watch.Reading) bool { return !used[request] })
}

func byFingerprint(a, b render.Request) int { return cmp.Compare(a.Fingerprint(), b.Fingerprint()) }
