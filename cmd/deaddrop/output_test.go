package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// holdsNoPart fails the test where a text has eight characters in a row of a secret.
func holdsNoPart(t *testing.T, what, text, secret string) {
	t.Helper()
	for i := 0; i+8 <= len(secret); i++ {
		if at := strings.Index(text, secret[i:i+8]); at >= 0 {
			assert.Fail(t, "a part of a secret has leaked", "%s: …%s", what, text[max(0, at-50):min(len(text), at+350)])
			return
		}
	}
}

// long is a secret of 300 characters.
func long() string {
	var secret strings.Builder
	for secret.Len() < 300 {
		secret.WriteString(strings.ToLower(strings.TrimPrefix(vaulttest.Marker(), "m4rker-")))
	}
	return secret.String()[:300]
}

// TestOutput_IsLoggedOnlyWhenAskedToAndShowsNoPartOfASecret has programs print secrets at
// the place of the cut, wrapped, in the trace of a shell, and in the answer of a URL.
func TestOutput_IsLoggedOnlyWhenAskedToAndShowsNoPartOfASecret(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	secret, token := long(), long()
	r.Tenant.Put("nexa", map[string]any{"KEY": secret})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, "unwelcome %3786s%s\n%s", "", r.Header.Get("Authorization"), secret)
	}))
	defer server.Close()
	r.write("header", "Authorization: Bearer "+token+"\n")
	prints := map[string]string{
		"cut":     `printf '%3800s' unwelcome; cat $FILE`,
		"wrapped": `echo unwelcome; fold -w 76 $FILE`,
		"traced":  `set -x; : unwelcome $(cat $FILE)`,
	}
	config := r.Login(r.dir) + interval + r.statusListener()
	for name, script := range prints {
		for _, show := range []string{"false", "true"} {
			config += fmt.Sprintf(`
drop "check-%[1]s-%[2]s" {
  secret      = %[3]q
  destination = "check-%[1]s-%[2]s.env"
  check {
    command     = ["sh", "-c", %[4]q, "sh", "{{.Path}}"]
    show_output = %[2]s
  }
}
drop "reload-%[1]s-%[2]s" {
  secret      = %[3]q
  destination = "reload-%[1]s-%[2]s.env"
  reload {
    command     = ["sh", "-c", %[5]q]
    on_start    = true
    show_output = %[2]s
  }
}
`, name, show, r.Path("nexa"), "FILE=$1; "+script+"; exit 1", "FILE=$DEADDROP_CHANGED_FILES; "+script+"; exit 1")
		}
	}
	for _, show := range []string{"false", "true"} {
		config += fmt.Sprintf(`
drop "url-%[1]s" {
  secret      = %[2]q
  destination = "url-%[1]s.env"
  reload {
    url         = "%[3]s/%[1]s"
    header_file = "header"
    on_start    = true
    show_output = %[1]s
  }
}
`, show, r.Path("nexa"), server.URL)
	}
	p := r.start("run", "--config", r.write("deaddrop.hcl", config))
	r.eventually("all have failed", func() bool {
		return strings.Count(p.log(), "drop failed") == 6 && strings.Count(p.log(), "reload failed") == 8
	})
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGUSR1))
	r.eventually("the log has the status", func() bool { return strings.Contains(p.log(), "status of a reload") })
	_, ready := r.get("/readyz")
	_, status := r.get("/status")
	shown, complaints, _ := r.output("status", "--config", "deaddrop.hcl")
	p.stop()
	for what, text := range map[string]string{"log": p.log(), "readyz": ready, "status": status, "deaddrop status": shown + complaints} {
		holdsNoPart(t, what, text, secret)
		holdsNoPart(t, what, text, token)
	}
	assert.NotContains(t, ready+status+shown, "unwelcome", "only the log has output")
	for line := range strings.Lines(p.log()) {
		if !strings.Contains(line, "drop failed") && !strings.Contains(line, "reload failed") {
			continue
		}
		asked := strings.Contains(line, `"output":"`)
		assert.Equal(t, asked, strings.Contains(line, "unwelcome") && strings.Contains(line, "[redacted]"), line)
		assert.NotEqual(t, asked, strings.Contains(line, `"hint":"set show_output = true in the `), line)
	}
	assert.Equal(t, 7, strings.Count(p.log(), `"output":"`))
	assert.Contains(t, ready, "check-cut-false: failed: check refused new content: exit status 1\n")
}

func TestOutput_OfACheckIsLoggedOnceTheConfigurationAsksForIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "x"})
	config := r.Login(r.dir) + interval + r.drop("nexa", "  check {\n    command = \"echo unwelcome; exit 1\"\n    show_output = false\n  }\n")
	p := r.start("run", "--config", r.write("deaddrop.hcl", config))
	r.eventually("it is refused", func() bool { return strings.Contains(p.log(), "check refused new content") })
	assert.Contains(t, p.log(), `"printed":"1 line, 10 bytes","hint":"set show_output = true in the check block to log its output, or run it by hand"`)
	require.NoError(t, os.WriteFile(r.path("deaddrop.hcl"), []byte(strings.Replace(config, "show_output = false", "show_output = true", 1)), 0o600))
	r.eventually("the output is logged", func() bool { return strings.Contains(p.log(), `"output":"unwelcome"`) })
	p.stop()
}
