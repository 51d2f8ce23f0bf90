package tenants

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errDenied = errors.New("permission denied")

// update takes a list without names that are no ids.
func update(t *testing.T, b *Block, names ...string) []Event {
	t.Helper()
	events, invalid := b.Update(names)
	require.Empty(t, invalid)
	return events
}

// departed returns a block with one present tenant, "stays", and "demo", which has just
// departed.
func departed(t *testing.T, o Options) *Block {
	t.Helper()
	b := New(o)
	update(t, b, "demo/", "stays/")
	require.Equal(t, []Event{{Departed, "demo"}}, update(t, b, "stays/"))
	return b
}

var demoExpired = []Event{{Expired, "demo"}}

func TestBlock_ReportsChangesOfTheListByTenant(t *testing.T) {
	steps := []struct {
		list    []string
		events  []Event
		present []string
	}{
		{nil, nil, nil},
		{[]string{"c/", "a/"}, []Event{{Added, "a"}, {Added, "c"}}, []string{"a", "c"}},
		{[]string{"c/", "a/"}, nil, []string{"a", "c"}},
		{[]string{"b/", "c/"}, []Event{{Departed, "a"}, {Added, "b"}}, []string{"b", "c"}},
		{[]string{"b/", "c/"}, nil, []string{"b", "c"}},
		{[]string{"a/", "c/", "d"}, []Event{{Returned, "a"}, {Departed, "b"}, {Added, "d"}}, []string{"a", "c", "d"}},
		{[]string{}, []Event{{Departed, "a"}, {Departed, "c"}, {Departed, "d"}}, nil},
	}
	b := New(Options{Grace: time.Hour})
	assert.False(t, b.IsKnown())
	for i, s := range steps {
		assert.Equal(t, s.events, update(t, b, s.list...), "step %d", i)
		assert.Equal(t, s.present, b.Present(), "step %d", i)
		assert.True(t, b.IsKnown())
	}
}

func TestBlock_TakesAFolderAndASecretOfOneNameAsOneTenant(t *testing.T) {
	b := New(Options{})
	assert.Equal(t, []Event{{Added, "demo"}}, update(t, b, "demo", "demo/"))
	assert.Empty(t, update(t, b, "demo/"))
	assert.Empty(t, update(t, b, "demo"))
}

func TestBlock_LeavesOutTenantsThatAreNotWanted(t *testing.T) {
	b := New(Options{Wants: func(id string) bool { return !strings.HasSuffix(id, "test") }})
	events, invalid := b.Update([]string{"demo/", "demo-test/", "a test/"})
	assert.Equal(t, []Event{{Added, "demo"}}, events)
	assert.Empty(t, invalid, "a name that is not wanted may be no id")
}

func TestBlock_ReportsANameThatIsNoTenantIDOnce(t *testing.T) {
	b := New(Options{})
	events, invalid := b.Update([]string{"demo/", "é/", "a b/", "a b", "../x", "/"})
	assert.Equal(t, []Event{{Added, "demo"}}, events)
	require.Len(t, invalid, 4, "a folder and a secret of one name are one")
	assert.ErrorContains(t, invalid[0], `"../x" is not an id`)
	assert.ErrorContains(t, invalid[1], "an id is empty")
	assert.ErrorContains(t, invalid[2], `"a b" is not an id`)
	assert.ErrorContains(t, invalid[3], `"é" is not an id`)

	_, invalid = b.Update([]string{"demo/", "a b/", "*/"})
	require.Len(t, invalid, 1)
	assert.ErrorContains(t, invalid[0], `"*" is not an id`)

	b.Fail(errDenied)
	b = b.WithOptions(Options{}, true)
	_, invalid = b.Update([]string{"demo/", "a b/", "é/"})
	require.Len(t, invalid, 1, "a name that was away is reported again")
	assert.ErrorContains(t, invalid[0], `"é" is not an id`)
	assert.Equal(t, []string{"demo"}, b.Present())
}

func TestBlock_ExpiresADepartedTenantAfterItsGracePeriod(t *testing.T) {
	for name, grace := range map[string]time.Duration{"some": 5 * time.Minute, "none": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := departed(t, Options{Grace: grace})
				end := time.Now().Add(grace)
				assert.True(t, end.Equal(b.NextExpiry()))
				if grace > 0 {
					time.Sleep(grace - 1)
					assert.Empty(t, b.Expire())
					update(t, b, "stays/")
					assert.True(t, end.Equal(b.NextExpiry()), "a list without it does not begin a new grace period")
					time.Sleep(time.Nanosecond)
				}
				assert.Equal(t, demoExpired, b.Expire())
				assert.Equal(t, []string{"stays"}, b.Present())
			})
		})
	}
}

func TestBlock_ExpiresEachTenantByItsOwnDeparture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{Grace: time.Hour})
		update(t, b, "a", "b", "c")
		update(t, b, "a", "b")
		time.Sleep(time.Minute)
		update(t, b)
		assert.Equal(t, 59*time.Minute, time.Until(b.NextExpiry()))
		time.Sleep(time.Until(b.NextExpiry()))
		assert.Equal(t, []Event{{Expired, "c"}}, b.Expire())
		b.Forget("c")
		assert.Equal(t, time.Minute, time.Until(b.NextExpiry()))
		time.Sleep(time.Until(b.NextExpiry()))
		assert.Equal(t, []Event{{Expired, "a"}, {Expired, "b"}}, b.Expire())
		b.Forget("a")
		b.Forget("b")
		assert.Zero(t, b.NextExpiry())
		assert.Empty(t, b.Departed())
	})
}

func TestBlock_KeepsADepartedTenantWhileTheListCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := departed(t, Options{Grace: time.Minute})
		b.Fail(errDenied)
		assert.ErrorIs(t, b.Err(), errDenied)
		assert.True(t, b.IsKnown())
		time.Sleep(time.Hour)
		assert.Empty(t, b.Expire())
		assert.Zero(t, b.NextExpiry(), "there is nothing to wake up for")
		assert.Equal(t, []string{"stays"}, b.Present())
		assert.Contains(t, b.Departed(), "demo")

		assert.Empty(t, update(t, b, "stays/"))
		assert.NoError(t, b.Err())
		assert.Equal(t, demoExpired, b.Expire(), "the grace period is over since long")
	})
}

func TestBlock_DoesNotTrustAListThatFailedWithoutAReason(t *testing.T) {
	b := departed(t, Options{})
	b.Fail(nil)
	assert.Error(t, b.Err())
	assert.Empty(t, b.Expire())
}

func TestBlock_IsNotKnownBeforeTheFirstList(t *testing.T) {
	b := New(Options{})
	assert.False(t, b.IsKnown())
	b.Fail(errDenied)
	assert.False(t, b.IsKnown())
	assert.False(t, b.IsResumed())
	update(t, b)
	assert.True(t, b.IsKnown(), "a folder without tenants is known as well")
}

func TestBlock_RepeatsAnExpiredTenantUntilItIsForgotten(t *testing.T) {
	b := departed(t, Options{})
	for range 3 {
		assert.Equal(t, demoExpired, b.Expire())
		assert.Contains(t, b.Departed(), "demo", "the next agent has to know it if this one is killed")
	}
	b.Forget("demo")
	assert.Empty(t, b.Expire())
	assert.Empty(t, b.Departed())
	assert.Equal(t, []Event{{Added, "demo"}}, update(t, b, "demo/", "stays/"))
}

func TestBlock_ReportsTheReturnOfAnExpiredTenantThatIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := departed(t, Options{Grace: time.Minute})
		time.Sleep(time.Minute)
		require.Equal(t, demoExpired, b.Expire())
		assert.Equal(t, []Event{{Returned, "demo"}}, update(t, b, "demo/", "stays/"))
		b.Forget("demo")
		assert.Equal(t, []string{"demo", "stays"}, b.Present(), "a present tenant is not forgotten")
		assert.Empty(t, b.Expire())
		assert.Zero(t, b.NextExpiry())

		update(t, b, "stays/")
		assert.Equal(t, time.Minute, time.Until(b.NextExpiry()), "it gets a new grace period")
	})
}

func TestBlock_PostponesAnExpiryWithoutChangingTheDeparture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := departed(t, Options{Grace: time.Minute})
		departure := b.Departed()["demo"]
		assert.Equal(t, time.Now().UTC(), departure)
		time.Sleep(time.Minute)
		require.Equal(t, demoExpired, b.Expire())
		until := time.Now().Add(5 * time.Second)
		b.Postpone("demo", until)

		assert.Empty(t, b.Expire())
		update(t, b, "stays/")
		b.Fail(errDenied)
		b = b.WithOptions(Options{Grace: 30 * time.Second}, true)
		assert.Empty(t, update(t, b, "stays/"))
		assert.Empty(t, b.Expire(), "lists and configurations do not try a failed removal again early")
		assert.True(t, until.Equal(b.NextExpiry()))
		assert.Equal(t, map[string]time.Time{"demo": departure}, b.Departed())

		time.Sleep(5 * time.Second)
		assert.Equal(t, demoExpired, b.Expire())
		assert.Equal(t, map[string]time.Time{"demo": departure}, b.Departed())
	})
}

func TestBlock_DoesNotShortenAGracePeriodByAPostponement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := departed(t, Options{Grace: time.Hour})
		b.Postpone("demo", time.Now().Add(time.Minute))
		assert.Equal(t, time.Hour, time.Until(b.NextExpiry()))
		time.Sleep(time.Minute)
		assert.Empty(t, b.Expire())
	})
}

func TestBlock_EndsAPostponementWhenTheTenantReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := departed(t, Options{})
		b.Postpone("demo", time.Now().Add(time.Hour))
		update(t, b, "demo/", "stays/")
		b.Postpone("demo", time.Now().Add(time.Hour)) // It comes from a removal that was under way.
		update(t, b, "stays/")
		assert.Equal(t, demoExpired, b.Expire())
		b.Postpone("unknown", time.Now())
		assert.NotContains(t, b.Departed(), "unknown")
	})
}

func TestBlock_ForgetsADepartedTenantWhoseFilesStay(t *testing.T) {
	b := departed(t, Options{KeepFiles: true})
	assert.Empty(t, b.Departed())
	assert.Empty(t, b.Expire())
	assert.Zero(t, b.NextExpiry())
	assert.Equal(t, []Event{{Added, "demo"}}, update(t, b, "demo/", "stays/"))
}

func TestRestore_TakesUpTheTenantsOfAnEarlierRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := time.Now().Add(-time.Hour)
		b := Restore(Options{Grace: 90 * time.Minute}, []string{"stays", "left", "../x", ""}, map[string]time.Time{
			"demo": before, "back": before, "new..": before, "*": before,
		})
		assert.False(t, b.IsKnown())
		assert.True(t, b.IsResumed())
		assert.NoError(t, b.Err())
		assert.Equal(t, []string{"left", "stays"}, b.Present(), "names that are no ids are dropped")
		assert.Equal(t, map[string]time.Time{"demo": before.UTC(), "back": before.UTC()}, b.Departed())

		assert.Equal(t, []Event{{Returned, "back"}, {Departed, "left"}, {Added, "new"}}, update(t, b, "back/", "new/", "stays/"))
		assert.Equal(t, 30*time.Minute, time.Until(b.NextExpiry()), "the grace period runs while no agent does")
		time.Sleep(30 * time.Minute)
		assert.Equal(t, demoExpired, b.Expire())
	})
}

func TestRestore_ExpiresNothingBeforeTheFirstList(t *testing.T) {
	b := Restore(Options{}, nil, map[string]time.Time{"demo": time.Now().Add(-24 * time.Hour), "gone": time.Now().Add(-24 * time.Hour)})
	assert.Empty(t, b.Expire())
	assert.Zero(t, b.NextExpiry())
	b.Fail(errDenied)
	assert.Empty(t, b.Expire())
	assert.Zero(t, b.NextExpiry())
	assert.Equal(t, []Event{{Returned, "demo"}}, update(t, b, "demo/"), "it is looked for once more")
	assert.Equal(t, []Event{{Expired, "gone"}}, b.Expire())
}

func TestRestore_TakesADepartureInTheFutureAsOneOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		future := time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)
		b := Restore(Options{Grace: time.Hour}, nil, map[string]time.Time{"demo": future})
		assert.Equal(t, map[string]time.Time{"demo": time.Now().UTC()}, b.Departed())
		update(t, b)
		assert.Empty(t, b.Expire())
		time.Sleep(time.Hour)
		assert.Equal(t, demoExpired, b.Expire())
	})
}

func TestRestore_TakesATenantThatIsPresentAndDepartedAsPresent(t *testing.T) {
	b := Restore(Options{Grace: time.Hour}, []string{"demo"}, map[string]time.Time{"demo": {}})
	assert.Equal(t, []string{"demo"}, b.Present())
	assert.Empty(t, b.Departed())
	assert.Equal(t, []Event{{Departed, "demo"}}, update(t, b))
	assert.Empty(t, b.Expire())
}

func TestRestore_ForgetsDepartedTenantsWhoseFilesStay(t *testing.T) {
	b := Restore(Options{KeepFiles: true}, []string{"left"}, map[string]time.Time{"demo": time.Now().Add(-time.Hour)})
	assert.Empty(t, b.Departed())
	assert.Equal(t, []Event{{Added, "demo"}, {Departed, "left"}}, update(t, b, "demo/"))
}

func TestBlock_WithOptionsCarriesTenantsOver(t *testing.T) {
	for name, tc := range map[string]struct {
		options    Options
		isSameList bool
		isFailing  bool
		isKnown    bool
		departed   []string
		left       time.Duration // until the next expiry, or 0 for none
	}{
		"the same":               {Options{Grace: time.Hour}, true, false, true, []string{"demo"}, 50 * time.Minute},
		"a longer grace period":  {Options{Grace: 2 * time.Hour}, true, false, true, []string{"demo"}, 110 * time.Minute},
		"a shorter grace period": {Options{Grace: 20 * time.Minute}, true, false, true, []string{"demo"}, 10 * time.Minute},
		"another folder":         {Options{Grace: time.Hour}, false, false, false, []string{"demo"}, 0},
		"a list that fails":      {Options{Grace: time.Hour}, true, true, true, []string{"demo"}, 0},
		"files that stay":        {Options{KeepFiles: true}, true, false, true, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := departed(t, Options{Grace: time.Hour})
				since := time.Now().UTC()
				time.Sleep(10 * time.Minute)
				if tc.isFailing {
					old.Fail(errDenied)
				}
				b := old.WithOptions(tc.options, tc.isSameList)
				assert.Equal(t, tc.isKnown, b.IsKnown())
				assert.True(t, b.IsResumed())
				assert.Equal(t, tc.isFailing, b.Err() != nil)
				assert.Equal(t, []string{"stays"}, b.Present())
				all := map[string]time.Time{}
				for _, id := range tc.departed {
					all[id] = since
				}
				assert.Equal(t, all, b.Departed())
				if tc.left == 0 {
					assert.Zero(t, b.NextExpiry())
				} else {
					assert.Equal(t, tc.left, time.Until(b.NextExpiry()))
				}

				b.Forget("demo")
				assert.Equal(t, []Event{{Departed, "stays"}}, update(t, b))
				assert.Equal(t, []string{"stays"}, old.Present(), "a refused configuration leaves the old block as it is")
				assert.Contains(t, old.Departed(), "demo")
			})
		})
	}
}

func TestBlock_WithOptionsDoesNotTrustTheListOfAnotherFolder(t *testing.T) {
	b := departed(t, Options{}).WithOptions(Options{}, false)
	assert.Empty(t, b.Expire())
	assert.Equal(t, []Event{{Departed, "stays"}}, update(t, b))
	assert.Equal(t, []Event{{Expired, "demo"}, {Expired, "stays"}}, b.Expire())
}

func TestBlock_WithOptionsLetsATenantDepartThatIsNotWantedAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{Grace: time.Hour})
		update(t, b, "demo", "other")
		b = b.WithOptions(Options{Grace: time.Hour, Wants: func(id string) bool { return id == "other" }}, true)
		assert.Equal(t, []string{"demo", "other"}, b.Present())
		assert.Equal(t, []Event{{Departed, "demo"}}, update(t, b, "demo", "other"))
		time.Sleep(time.Hour)
		assert.Equal(t, demoExpired, b.Expire())
	})
}

func TestKind_HasANameForLogs(t *testing.T) {
	for kind, name := range map[Kind]string{Added: "added", Departed: "departed", Returned: "returned", Expired: "expired"} {
		assert.Equal(t, name, kind.String())
	}
}
