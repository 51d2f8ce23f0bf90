package signals

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse_ReadsNamesAndNumbers(t *testing.T) {
	for text, want := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "SIGHUP": syscall.SIGHUP, "usr1": syscall.SIGUSR1, "15": syscall.SIGTERM, "RTMIN": 34, "sigrtmin+3": 37, "RTMAX-1": 63, "64": 64} {
		got, err := Parse(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got)
		again, err := Parse(Name(got))
		require.NoError(t, err, text)
		assert.Equal(t, want, again)
	}
}

func TestParse_SuggestsTheNearestName(t *testing.T) {
	for text, want := range map[string]string{
		"HPU": `there is no signal "HPU"; did you mean "SIGHUP"?`, "": `there is no signal ""`, "0": "no signal", "99": "no signal", "-1": "no signal", "RTMIN+31": "no signal", "RTMIN3": "no signal", "RTMAX+1": "no signal", "33": "no signal", "reload": "examples are",
	} {
		_, err := Parse(text)
		require.ErrorContains(t, err, want, text)
	}
}
