package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

// hostile acts on a terminal, turns and hides text, and fakes lines.
const hostile = "x\x1b[2J\x07\u009b31m\u202e\u2066\u200b\ufeff\u2028\u0085\u00a0\x7f\r\nFAKE line\u3164"

func TestNothingThatIsShownActsOnATerminal(t *testing.T) {
	t.Parallel()
	var refuses atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := map[string]any{"request_id": "x", "errors": []string{hostile, "FAKE: all is well"}}
		code := http.StatusBadRequest
		switch list := r.Method == "LIST" || r.URL.Query().Get("list") == "true"; {
		case refuses.Load():
		case list && strings.TrimSuffix(r.URL.Path, "/") == "/v1/secret/metadata/tenant":
			code, answer = http.StatusOK, map[string]any{"request_id": "x", "data": map[string]any{"keys": []string{hostile + "/"}}}
		case list:
			code, answer = http.StatusOK, map[string]any{"request_id": "x", "data": map[string]any{"keys": []string{hostile}}}
		case strings.HasPrefix(r.URL.Path, "/v1/secret/data/"):
			code, answer = http.StatusOK, map[string]any{"request_id": "x", "data": map[string]any{
				"data": map[string]any{hostile: hostile}, "metadata": map[string]any{"version": 1, "created_time": "2026-01-02T03:04:05Z", "deletion_time": ""}}}
		case strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/"):
			code, answer = http.StatusOK, map[string]any{"request_id": "x", "data": map[string]any{"path": "secret/", "type": "kv", "options": map[string]any{"version": "2"}}}
		case r.URL.Path == "/v1/sys/seal-status":
			code, answer = http.StatusOK, map[string]any{"initialized": true, "sealed": false, "type": hostile, "storage_type": hostile, "version": hostile, "cluster_name": hostile, "t": 1, "n": 1}
		case strings.HasPrefix(r.URL.Path, "/v1/sys/health"):
			code, answer = http.StatusOK, map[string]any{"initialized": true, "sealed": false, "version": hostile, "cluster_name": hostile}
		}
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	env := []string{"VAULT_ADDR=" + server.URL, "VAULT_TOKEN=x", "VAULT_MAX_RETRIES=0"}
	for _, refused := range []bool{false, true} {
		refuses.Store(refused)
		for _, args := range []string{"tenant list", "tenant show demo nexa", "tenant show demo nexa --reveal", "tenant versions demo nexa", "credentials list", "status", "tenant list -o json", "status -o json"} {
			out, complaints, _ := run(t, env, strings.Fields(args)...)
			for _, text := range []string{out, complaints} {
				assert.True(t, utf8.ValidString(text), args)
				assert.False(t, strings.ContainsFunc(text, func(c rune) bool { return c != '\n' && !unicode.IsPrint(c) || c == '\u3164' }), "%s: %q", args, text)
				assert.NotContains(t, "\n"+text, "\nFAKE", args)
			}
			if refused || strings.HasPrefix(args, "tenant list") {
				assert.Contains(t, out+complaints, `\u202e`, args)
			}
		}
	}
}
