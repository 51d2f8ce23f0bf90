package main

import (
	"bytes"
	"flag"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/devvault"
)

func TestHelpExplainsEveryFlag(t *testing.T) {
	var help bytes.Buffer
	_, err := parse([]string{"-h"}, &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	for _, name := range []string{"listen", "tls", "tls-dir", "root-token", "state", "audit", "sealed", "raft", "raft-join", "keys", "unseal-key", "json", "exit-with-stdin", "log-level"} {
		assert.Contains(t, help.String(), "  -"+name)
	}
}

func TestBadUsageIsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"-listen", "0.0.0.0:8200"}, {"-log-level", "loud"}, {"-tls-dir", "x"}, {"-raft", "n"}, {"-raft-join", "http://127.0.0.1:1"}, {"stray"}, {"-unknown"},
	} {
		_, err := parse(args, io.Discard)
		assert.Error(t, err, "%v", args)
	}
}

func TestRootTokenOfTheEnvironmentIsTheDefaultAndNotInTheHelp(t *testing.T) {
	t.Setenv("DEVVAULT_ROOT_TOKEN", "from-environment")
	var help bytes.Buffer
	_, err := parse([]string{"-h"}, &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	assert.NotContains(t, help.String(), "from-environment")
	f, err := parse(nil, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, "from-environment", f.RootToken)
}

func TestReadinessIsOneLineOfJSON(t *testing.T) {
	var out bytes.Buffer
	server := &devvault.Server{
		Address: "http://127.0.0.1:1", Keys: devvault.Keys{RootToken: "t", UnsealKeys: []string{"a2V5"}}, Version: "1.21.0",
	}
	require.NoError(t, announce(&out, server, true))
	assert.Equal(t, 1, bytes.Count(out.Bytes(), []byte("\n")))
	assert.Contains(t, out.String(), `{"address":"http://127.0.0.1:1","root_token":"t","unseal_keys":["a2V5"],"version":"1.21.0","pid":`)
}
