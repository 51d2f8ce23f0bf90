package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestTheTokenIsNotInTheProcessList(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("this is not root, who alone may read the environment")
	}
	cmd := command(t, []string{"VAULT_ADDR=http://127.0.0.1:1", "OTHER=seen", "VAULT_TOKEN=" + vaulttest.Marker()}, "login", "--password-file", "-")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	environ := func() string {
		content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
		return string(content)
	}
	require.Eventually(t, func() bool { return strings.Contains(environ(), "OTHER=seen\x00VAULT_TOKEN=\x00\x00") }, time.Minute, 10*time.Millisecond)
	leaktest.Process(t, cmd.Process.Pid)
	_ = in.Close()
	assert.Error(t, cmd.Wait())
}
