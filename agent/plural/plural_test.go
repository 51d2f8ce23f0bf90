package plural

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPlural_AgreesWithTheCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 drops are", 1: "1 drop is", 2: "2 drops are"} {
		assert.Equal(t, want, Of(n, "drop")+" "+Be(n))
	}
}
