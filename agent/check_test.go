package agent

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/render"
)

func TestCheck_HidesTheValuesOfAFileAndNotItsNames(t *testing.T) {
	hidden := valuesIn(config.Drop{Destination: "nexa.env", Encoding: render.Encoding{Format: render.FormatDotenv}}, []byte(
		"DATABASE_URL='postgres://u:pa\"ss@h/db'\nexport API_TOKEN=\"t0ken-of-nexa\"\n# derived-by-a-template\nc2VjcmV0LWxpbmU=\n//registry/:_authToken=npm-t0ken\n"))
	for text, want := range map[string]string{
		"DATABASE_URL is bad":          "DATABASE_URL is bad",
		"API_TOKEN=t0ken-of-nexa":      "API_TOKEN=[redacted]",
		`postgres://u:pa\"ss@h/db`:     "[redacted]",
		"derived-by-a-template, line":  "[redacted], line",
		"c2VjcmV0\nLWxpbmU=":           "[redacted]",
		"no token npm-t0ken is known!": "no token [redacted] is known!",
	} {
		assert.Equal(t, want, redact.Text([]byte(text), false, hidden), text)
	}
}

func TestCheck_CollectsHiddenValuesOnlyWhereOutputIsShown(t *testing.T) {
	silent := config.Drop{Check: &config.Check{}, Reloads: []config.Reload{{Target: config.Command{Args: []string{"true"}}}, {Target: config.HTTP{}}}}
	group := func(d config.Drop, set *config.Set) rendered {
		return rendered{group: group{set, []*state{{drop: d}}}}
	}
	assert.False(t, group(silent, &config.Set{Check: silent.Check, Reloads: silent.Reloads}).showsOutput())
	for _, each := range []rendered{
		group(config.Drop{Check: &config.Check{ShowOutput: true}}, nil),
		group(config.Drop{Reloads: []config.Reload{{Target: config.Command{ShowOutput: true}}}}, nil),
		group(config.Drop{Reloads: []config.Reload{{Target: config.HTTP{ShowOutput: true}}}}, nil),
		group(silent, &config.Set{Check: &config.Check{ShowOutput: true}}),
		group(silent, &config.Set{Reloads: []config.Reload{{Target: config.HTTP{ShowOutput: true}}}}),
	} {
		assert.True(t, each.showsOutput())
	}
}
