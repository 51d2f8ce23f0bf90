package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// hostile acts on a terminal, turns and hides text, and fakes lines.
const hostile = "x\x1b[2J\x1b]0;title\x07\u009b31m\u202e\u2066\u200b\ufeff\u2028\u0085\u00a0\x7f\r\n+ FAKE=1\nFAKE: ready\r\u3164"

// isPrintable fails the test where a text has more than printable characters and lines, or
// a line that only [hostile] can have made.
func isPrintable(t *testing.T, what, text string) {
	t.Helper()
	assert.True(t, utf8.ValidString(text), what)
	for _, c := range text {
		if c != '\n' && !unicode.IsPrint(c) || c == '\u3164' {
			assert.Fail(t, "not printable", "%s: %q in %q", what, c, text)
			return
		}
	}
	for line := range strings.Lines(text) {
		assert.False(t, strings.HasPrefix(line, "+ FAKE") || strings.HasPrefix(line, "FAKE"), "%s: a faked line in %q", what, text)
	}
}

// hostileVault is a Vault behind a proxy. It refuses to read the secret "denied" in hostile
// words, and has tenants of hostile names.
func hostileVault(t *testing.T, s *vaulttest.Server, own string) (address string) {
	t.Helper()
	return through(t, s, func(vault *httputil.ReverseProxy) http.Handler {
		vault.ModifyResponse = func(answer *http.Response) error {
			var body any
			path := strings.TrimSuffix(answer.Request.URL.Path, "/")
			switch {
			case strings.HasSuffix(path, "/denied"):
				answer.StatusCode = http.StatusBadRequest
				body = map[string]any{"errors": []string{hostile, "FAKE: all is well"}}
			case path == "/v1/secret/metadata/tenant":
				answer.StatusCode = http.StatusOK
				body = map[string]any{"request_id": "x", "data": map[string]any{"keys": []string{own + "/", hostile + "/", "a\u202e/"}}}
			default:
				return nil
			}
			text, err := json.Marshal(body)
			answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
			answer.Header.Del("Content-Length")
			return err
		}
		return vault
	})
}

func TestNothingThatIsShownActsOnATerminal(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.AllowAll()
	r.Put("nexa", map[string]any{hostile: "value of " + hostile, "PATH": "side" + strings.ReplaceAll(hostile, "\x00", "")})
	r.env = append(r.env, "VAULT_ADDR="+hostileVault(t, s, r.ID))
	config := r.Login(r.dir) + interval + r.statusListener() + `
drop "keys" {
  secret      = "` + r.Path("nexa") + `"
  destination = "keys.json"
}
drop "names" {
  secret      = "` + r.Path("nexa") + `"
  destination = "names.env"
}
drop "denied" {
  secret      = "` + r.Path("denied") + `"
  destination = "denied.env"
}
template {
  contents    = "{{ with secret \"` + r.Path("nexa") + `\" }}{{ range $k, $v := .Data.data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}"
  destination = "plain.txt"
}
template {
  contents    = "{{ with secret \"` + r.Path("nexa") + `\" }}{{ index .Data.data \"no\\u202e\\nFAKE\" }}{{ end }}"
  destination = "missing.txt"
  error_on_missing_key = true
}
drop "each" {
  for_each    = "secret/tenant/*"
  secret      = "secret/tenant/${each.key}/nexa"
  destination = "each-${each.key}.json"
}
drop "checked" {
  secret      = "` + r.Path("nexa") + `"
  destination = "checked.json"
  check {
    command     = "printf 'unwelcome \\033[2J \\342\\200\\256 \\233 \\n+ FAKE\\n'; exit 1"
    show_output = true
  }
}
`
	r.write("deaddrop.hcl", config)
	out, complaints, code := r.output("validate", "deaddrop.hcl")
	require.Zero(t, code, out+complaints)
	for _, format := range []string{"text", "json"} {
		for _, args := range []string{"render --diff", "render --dry-run", "render --diff --show-secrets", "render --dry-run --show-secrets", "doctor", "doctor -o json"} {
			words := append(strings.Fields(args), "--config", "deaddrop.hcl", "--log-format", format)
			out, complaints, code := r.showing().output(words...)
			assert.NotZero(t, code, args)
			isPrintable(t, args, out)
			isPrintable(t, args, complaints)
			assert.Contains(t, out+complaints, "u202e", "%s: it is shown, escaped", args)
			if !strings.Contains(args, "--show-secrets") { // Then it is a line of a file.
				assert.NotContains(t, out, "\n  + FAKE", args)
			}
		}
		p := r.showing().start("run", "--config", "deaddrop.hcl", "--log-format", format)
		r.eventually("all was tried", func() bool {
			return strings.Contains(p.log(), "unwelcome") && strings.Contains(p.log(), "all is well") && r.read("each-"+r.ID+".json") != ""
		})
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGUSR1))
		r.eventually("the log has the status", func() bool { return strings.Contains(p.log(), "status of a drop") })
		for _, path := range []string{"/readyz", "/status"} {
			_, body := r.get(path)
			isPrintable(t, path, body)
			assert.Contains(t, body, "u202e", path)
		}
		for _, args := range []string{"status", "status -o json", "status --check"} {
			out, complaints, _ := r.output(append(strings.Fields(args), "--config", "deaddrop.hcl")...)
			isPrintable(t, args, out)
			isPrintable(t, args, complaints)
			assert.Contains(t, out+complaints, "u202e", args)
		}
		p.stop()
		isPrintable(t, "log, "+format, p.log())
		assert.Contains(t, p.log(), "u202e")
	}
	assert.Contains(t, r.read("keys.json"), `\u001b[2J`, "the file has the value as it is")

	out, complaints, _ = r.output("render", "--no-such-flag\x1b[2J\u202e")
	isPrintable(t, "a bad flag", out+complaints)
	r.write("bad\u202e.hcl", "drop \"a\u202e\\n+ FAKE\" {\n  no\u202ename = 1\n}\n")
	out, complaints, _ = r.output("validate", "bad\u202e.hcl")
	isPrintable(t, "a bad configuration", out+complaints)
	assert.Contains(t, complaints, "u202e")
}
