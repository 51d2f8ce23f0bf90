package tenants

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// model is a second, simpler account of a block: the life of each tenant, as its events and
// the journal tell it.
type model struct {
	t         *testing.T
	options   Options
	block     *Block
	isCertain bool
	present   map[string]bool
	departed  map[string]time.Time // when a tenant has departed
	postponed map[string]time.Time
}

var ids = []string{"a", "b", "c", "d"}

// update gives the block the tenants of a bit mask, and names that are no ids.
func (m *model) update(mask byte) {
	listed, names := map[string]bool{}, []string{"..", "x y"}
	for i, id := range ids {
		if mask&(1<<i) != 0 {
			names = append(names, id+"/")
			listed[id] = true
		}
	}
	events, _ := m.block.Update(names)
	m.isCertain = true
	require.True(m.t, slices.IsSortedFunc(events, func(x, y Event) int { return int(x.Tenant[0]) - int(y.Tenant[0]) }))
	for _, e := range events {
		since, isDeparted := m.departed[e.Tenant]
		switch e.Kind {
		case Added:
			require.True(m.t, listed[e.Tenant] && !m.present[e.Tenant] && !isDeparted, "%v", e)
			m.present[e.Tenant] = true
		case Departed:
			require.True(m.t, !listed[e.Tenant] && m.present[e.Tenant], "%v", e)
			delete(m.present, e.Tenant)
			if !m.options.KeepFiles {
				m.departed[e.Tenant] = time.Now()
			}
		case Returned:
			require.True(m.t, listed[e.Tenant] && isDeparted, "%v since %s", e, since)
			delete(m.departed, e.Tenant)
			delete(m.postponed, e.Tenant)
			m.present[e.Tenant] = true
		default:
			require.Fail(m.t, "no event of a list", "%v", e)
		}
	}
	require.Equal(m.t, listed, m.present, "no change is left out")
}

// expire removes the files of expired tenants, fails to, or is killed before it can.
func (m *model) expire(outcome byte) {
	var due []Event
	for _, id := range slices.Sorted(maps.Keys(m.departed)) {
		if m.isCertain && time.Since(m.departed[id]) >= m.options.Grace && !time.Now().Before(m.postponed[id]) {
			due = append(due, Event{Expired, id})
		}
	}
	require.Equal(m.t, due, m.block.Expire())
	for _, e := range due {
		switch outcome % 3 {
		case 0:
			m.block.Forget(e.Tenant)
			delete(m.departed, e.Tenant)
			delete(m.postponed, e.Tenant)
		case 1:
			m.postponed[e.Tenant] = time.Now().Add(5 * time.Second)
			m.block.Postpone(e.Tenant, m.postponed[e.Tenant])
		}
	}
}

// restart starts the next agent with the journal of the one before.
func (m *model) restart() {
	m.block = Restore(m.options, m.block.Present(), m.block.Departed())
	m.isCertain, m.postponed = false, map[string]time.Time{}
}

// reconfigure changes the options.
func (m *model) reconfigure(choice byte) {
	isSameList := choice&1 != 0
	m.options = Options{Grace: time.Duration(choice>>2) * time.Second, KeepFiles: choice&2 != 0}
	m.block = m.block.WithOptions(m.options, isSameList)
	m.isCertain = m.isCertain && isSameList
	if m.options.KeepFiles {
		clear(m.departed)
		clear(m.postponed)
	}
}

// check compares the block with the model.
func (m *model) check() {
	require.Equal(m.t, slices.Sorted(maps.Keys(m.present)), m.block.Present())
	departed := map[string]time.Time{}
	var next time.Time
	for id, since := range m.departed {
		departed[id] = since.UTC()
		at := since.Add(m.options.Grace)
		if m.postponed[id].After(at) {
			at = m.postponed[id]
		}
		if m.isCertain && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	require.Equal(m.t, departed, m.block.Departed(), "nothing but a return changes a departure")
	require.True(m.t, next.Equal(m.block.NextExpiry()), "%s, not %s", m.block.NextExpiry(), next)
}

// FuzzBlock_ExpiresOnlyWhatDepartedForCertain takes two bytes a step: what happens, and how.
func FuzzBlock_ExpiresOnlyWhatDepartedForCertain(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var steps []byte
		for range 100 {
			steps = binary.LittleEndian.AppendUint16(steps, uint16(random.Uint32()))
		}
		f.Add(steps)
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		synctest.Test(t, func(t *testing.T) {
			options := Options{Grace: 10 * time.Second}
			m := &model{t: t, options: options, block: New(options), present: map[string]bool{}, departed: map[string]time.Time{}, postponed: map[string]time.Time{}}
			for step := range slices.Chunk(steps, 2) {
				if len(step) < 2 {
					break
				}
				switch how := step[1]; step[0] % 16 {
				case 0, 1, 2, 3, 4:
					m.update(how)
				case 5, 6:
					m.block.Fail(errors.New("permission denied"))
					m.isCertain = false
				case 7:
					m.restart()
				case 8:
					m.reconfigure(how)
				case 9, 10, 11:
					time.Sleep(time.Duration(how) * 100 * time.Millisecond)
				default:
					m.expire(how)
				}
				m.check()
			}
		})
	})
}
