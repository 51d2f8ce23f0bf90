package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestRender_AFIFOInTheSandboxDoesNotHang(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("another user's folder needs root")
	}
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker})
	require.NoError(t, os.Mkdir(r.path("box"), 0o755))
	require.NoError(t, syscall.Mkfifo(r.path("box/extra"), 0o666))
	require.NoError(t, os.Lchown(r.path("box/extra"), 65532, 65532))
	require.NoError(t, os.Lchown(r.path("box"), 65532, 65532))
	config := r.write("deaddrop.hcl", r.Login(r.dir)+`
template {
  contents     = "{{ file \"`+r.path("box/extra")+`\" }}"
  destination  = "out.txt"
  sandbox_path = "`+r.path("box")+`"
}
template {
  contents    = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ file .Data.data.KEY }}{{ end }}"
  destination = "other.txt"
}
`)
	out, code := r.deaddrop("render", "--once", "--timeout", "60s", "--config", config)
	require.Equal(t, 1, code, out)
	assert.Contains(t, out, "error calling file: it is not a regular file")
	assert.Contains(t, out, "error calling file: there is no such file")
	assert.NotContains(t, out, marker)
}

func TestRender_ATenantsLoaderVariableKeepsTheLastGoodFile(t *testing.T) {
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "1"})
	config := r.write("deaddrop.hcl", r.Login(r.dir)+`
drop "nexa" {
  secret      = "`+r.Path("nexa")+`"
  destination = "nexa.env"
  keys { upper = true }
}
`)
	out, code := r.deaddrop("render", "--once", "--config", config)
	require.Zero(t, code, out)
	r.Put("nexa", map[string]any{"KEY": "2", "ld_preload": "/tmp/evil.so", "x": strings.Repeat("a.", 20_000) + "a = 1"})
	out, code = r.deaddrop("render", "--once", "--config", config)
	require.Equal(t, 1, code, out)
	assert.Contains(t, out, `LD_PRELOAD`)
	assert.Contains(t, out, "loads code into every program")
	assert.Contains(t, out, "allow_loader = true", "the hint is logged beside the error")
	assert.NotContains(t, out, "evil")
	assert.Equal(t, "KEY=1\n", r.read("nexa.env"))
	r.write("deaddrop.hcl", strings.Replace(r.read("deaddrop.hcl"), "upper = true", "\n    upper = true\n    except = [\"x\"]\n    allow_loader = true\n ", 1))
	out, code = r.deaddrop("render", "--once", "--config", config)
	require.Zero(t, code, out)
	assert.Contains(t, r.read("nexa.env"), "LD_PRELOAD=/tmp/evil.so\n")
}

// Vault quotes the parameters of a write in its errors.
func TestRender_ParametersOfAWriteAreInNoError(t *testing.T) {
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	mount := s.PKI(t)
	r.Grant(mount+"/issue/web", "update")
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker})
	config := r.write("deaddrop.hcl", r.Login(r.dir)+`
template {
  contents    = "{{ with secret \"`+r.Path("nexa")+`\" }}{{ with secret \"`+mount+`/issue/web\" (printf \"common_name=a.example\") (printf \"ttl=%s\" .Data.data.KEY) }}{{ .Data }}{{ end }}{{ end }}"
  destination = "out.txt"
}
`)
	out, code := r.deaddrop("render", "--once", "--timeout", "60s", "--config", config)
	require.Equal(t, exitFailed, code, out)
	assert.Contains(t, out, "[redacted]")
	assert.NotContains(t, out, marker)
}
