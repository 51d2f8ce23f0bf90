package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func TestRender_AFIFOInTheSandboxDoesNotHang(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker})
	box := r.folderOfNobody("box")
	runAsNobody(t, box, "mkfifo extra")
	config := r.write("deaddrop.hcl", r.Login(r.dir)+`
template {
  contents     = "{{ file \"`+box+`/extra\" }}"
  destination  = "out.txt"
  sandbox_path = "`+box+`"
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
	t.Parallel()
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
	t.Parallel()
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

// TestRun_LogsNothingOfAnAnswerThatIsSentTwice has a gateway repeat an answer on a
// connection that waits for the next request: net/http logs what it finds there.
func TestRun_LogsNothingOfAnAnswerThatIsSentTwice(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"KEY": "one"})
	var once sync.Once
	dropped := make(chan struct{}) // the connection, by the agent
	r.env = append(r.env, "VAULT_ADDR="+through(t, s, func(proxy *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !strings.HasSuffix(req.URL.Path, "/data/"+strings.TrimPrefix(r.Path("nexa"), "secret/")) {
				proxy.ServeHTTP(w, req)
				return
			}
			answer := httptest.NewRecorder()
			proxy.ServeHTTP(answer, req)
			conn, _, err := w.(http.Hijacker).Hijack()
			if !assert.NoError(t, err) {
				return
			}
			defer conn.Close()
			var text bytes.Buffer
			_ = answer.Result().Write(&text)
			_, _ = conn.Write(text.Bytes())
			once.Do(func() {
				// The file shows that the first answer has been read.
				for t.Context().Err() == nil {
					if _, err := os.Stat(r.path("nexa.json")); err == nil {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				_, _ = conn.Write(text.Bytes())
				_, _ = conn.Read(make([]byte, 1))
				close(dropped)
			})
		})
	}))
	r.write("deaddrop.hcl", r.drop("nexa", ""))
	p := r.start("run", "--config", "deaddrop.hcl")
	select {
	case <-dropped:
	case <-time.After(time.Minute):
		t.Fatal("the agent does not notice the second answer:\n" + p.log())
	}
	p.stop()
	assert.Empty(t, leaktest.Find(p.log()))
	assert.NotContains(t, p.log(), "HTTP/1.1")
}
