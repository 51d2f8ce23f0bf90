package tally

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestATallyCountsConcurrently(t *testing.T) {
	var counted Tally
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			counted.Note(time.Now(), nil)
			counted.Note(time.Now().Add(-time.Second), errors.New("no"))
		})
	}
	all.Wait()
	sum := counted.Sum()
	assert.EqualValues(t, 100, sum.Succeeded)
	assert.EqualValues(t, 100, sum.Failed)
	assert.GreaterOrEqual(t, sum.Took, 100*time.Second)
}

func TestANilTallyCountsNothing(t *testing.T) {
	var none *Tally
	none.Note(time.Now(), nil)
	assert.Zero(t, none.Sum())
}
