package publish

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/redact"
	"github.com/smarteros/deaddrop/render"
)

func TestHidden_HoldsTheValuesOfAFileAndNotItsNames(t *testing.T) {
	hidden := valuesIn(&config.Drop{Destination: "nexa.env", Encoding: render.Encoding{Format: render.FormatDotenv}}, []byte(
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
