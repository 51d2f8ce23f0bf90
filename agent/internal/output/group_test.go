package output

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/agent/config"
)

func TestGroup_ShowsOutputIfAnyCheckOrReloadDoes(t *testing.T) {
	silent := config.Drop{Check: &config.Check{}, Reloads: []config.Reload{{Target: config.Command{Args: []string{"true"}}}, {Target: config.HTTP{}}}}
	group := func(d config.Drop, set *config.Set) *Group {
		return &Group{Set: set, Outputs: []*Output{{Drop: d}}}
	}
	assert.False(t, group(silent, &config.Set{Check: silent.Check, Reloads: silent.Reloads}).showsOutput())
	for _, each := range []*Group{
		group(config.Drop{Check: &config.Check{ShowOutput: true}}, nil),
		group(config.Drop{Reloads: []config.Reload{{Target: config.Command{ShowOutput: true}}}}, nil),
		group(config.Drop{Reloads: []config.Reload{{Target: config.HTTP{ShowOutput: true}}}}, nil),
		group(silent, &config.Set{Check: &config.Check{ShowOutput: true}}),
		group(silent, &config.Set{Reloads: []config.Reload{{Target: config.HTTP{ShowOutput: true}}}}),
	} {
		assert.True(t, each.showsOutput())
	}
}
