package readings

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
)

var nexa, smtp, list = render.Read("secret/nexa"), render.Read("secret/smtp"), render.List("secret/tenant")

func TestCache_NamesTheUsersThatAChangeConcerns(t *testing.T) {
	c := New[string]()
	c.SetUses("env", []render.Request{nexa, smtp}, nil)
	c.SetUses("json", []render.Request{nexa}, []render.Request{smtp})
	assert.ElementsMatch(t, []string{"env", "json"}, c.Learn(watch.Batch{nexa: {}, smtp: {}}), "each once")
	assert.Equal(t, []string{"env"}, c.Learn(watch.Batch{smtp: {}}), "what is only held concerns nobody")
	assert.Empty(t, c.Learn(watch.Batch{list: {}}))

	c.SetUses("env", []render.Request{smtp}, nil)
	assert.Equal(t, []string{"json"}, c.Learn(watch.Batch{nexa: {}}))
	c.Remove("json")
	assert.Empty(t, c.Learn(watch.Batch{nexa: {}}))
	assert.Equal(t, []render.Request{smtp}, c.Requests())
}

func TestCache_NamesUnresolvedRequests(t *testing.T) {
	c := New[string]()
	assert.Empty(t, c.Unresolved())
	c.SetUses("env", []render.Request{smtp, nexa, nexa}, []render.Request{list})
	assert.Len(t, c.Requests(), 3)
	assert.ElementsMatch(t, []render.Request{nexa, smtp, list}, c.Unresolved())
	c.Learn(watch.Batch{nexa: {}, smtp: {Err: errors.New("denied")}})
	assert.Equal(t, []render.Request{list}, c.Unresolved(), "a failure is a reading")
}

func TestCache_PrunesReadingsThatNobodyUses(t *testing.T) {
	c := New[string]()
	c.SetUses("env", []render.Request{nexa}, []render.Request{smtp})
	c.Learn(watch.Batch{nexa: {}, smtp: {}, list: {}})
	c.Prune()
	_, known := c.Reading(list)
	assert.False(t, known)
	assert.Len(t, c.All(), 2)
	c.SetUses("env", []render.Request{nexa}, nil)
	c.Prune()
	assert.Len(t, c.All(), 1)
}

func TestCache_OrdersRequestsTheSameForAllUsers(t *testing.T) {
	a, b := New[string](), New[string]()
	a.SetUses("x", []render.Request{nexa, smtp, list}, nil)
	b.SetUses("y", []render.Request{list}, nil)
	b.SetUses("x", []render.Request{smtp, nexa}, nil)
	assert.Equal(t, a.Requests(), b.Requests())
}
