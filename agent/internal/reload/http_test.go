package reload

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/internal/redact"
)

func headerFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "headers")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func TestHTTPAsksAsItWasTold(t *testing.T) {
	var asked []string
	answers := []int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, fmt.Sprint(r.Method, " ", r.URL, " ", r.Header.Get("Authorization"), " ", r.Header.Get("X-Tenant")))
		status := answers[0]
		if answers = answers[1:]; status == 302 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintln(w, "key=m4rker\n is\tbad")
	}))
	defer server.Close()
	address := strings.Replace(server.URL, "http://", "http://user:m4rker@", 1) + "/reload?key=m4rker"
	plainURL := strings.Replace(server.URL, "http://", "http://user:xxxxx@", 1) + "/reload"
	for name, tc := range map[string]struct {
		do      HTTP
		answers []int
		asked   string // each of them
		err     string
	}{
		"POST":                       {HTTP{Method: "POST"}, []int{204}, "POST /reload?key=m4rker Basic dXNlcjptNHJrZXI= ", ""},
		"GET":                        {HTTP{Method: "GET"}, []int{200}, "GET /reload?key=m4rker Basic dXNlcjptNHJrZXI= ", ""},
		"headers":                    {HTTP{Method: "POST", HeaderFile: headerFile(t, "Authorization: Bearer m4rker\n\nX-Tenant:demo\n")}, []int{200}, "POST /reload?key=m4rker Bearer m4rker demo", ""},
		"an expected status":         {HTTP{Method: "GET", Expect: []int{200, 418}}, []int{418}, "GET /reload?key=m4rker Basic dXNlcjptNHJrZXI= ", ""},
		"another one":                {HTTP{Method: "GET", Expect: []int{200, 418}}, []int{204}, "GET", "GET " + plainURL + ": the answer is 204 No Content, not 200 or 418"},
		"refused":                    {HTTP{Method: "POST", Retries: 3}, []int{400}, "POST", "POST " + plainURL + ": the answer is 400 Bad Request, not 2xx"},
		"no redirection is followed": {HTTP{Method: "POST", Retries: 3}, []int{302}, "POST", "the answer is 302 Found, not 2xx"},
		"busy at first":              {HTTP{Method: "POST", Retries: 1}, []int{503, 200}, "POST", ""},
		"busy all the time":          {HTTP{Method: "POST", Retries: 1}, []int{503, 429}, "POST", "the answer is 429 Too Many Requests, not 2xx"},
	} {
		tc.do.URL, tc.do.Timeout = address, time.Minute
		asked, answers = nil, tc.answers
		err := tc.do.Do(t.Context(), Change{Hidden: []string{}})
		if tc.err == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, tc.err, name)
			assert.NotContains(t, err.Error(), "m4rker", name)
		}
		require.Len(t, asked, len(tc.answers), name)
		for _, each := range asked {
			assert.True(t, strings.HasPrefix(each, tc.asked), "%s: %s", name, each)
		}
		require.NoError(t, tc.do.Check(t.Context()), name)
		assert.NotContains(t, tc.do.String(), "m4rker")
	}
	server.Close()
	here := HTTP{URL: address, Method: "POST", Timeout: time.Minute}
	err := here.Do(t.Context(), Change{})
	require.ErrorContains(t, err, "connection refused")
	assert.NotContains(t, err.Error(), "m4rker")
	require.ErrorContains(t, here.Check(t.Context()), "nobody answers")
}

func TestHTTPSaysWhatIsWrongWithItsFilesAndShowsNothingOfThem(t *testing.T) {
	for content, want := range map[string]string{
		"Authorization m4rker":             "line 1 is not a header",
		"X: a\n: m4rker":                   "line 2 is not a header",
		"X: m4r\x01ker":                    "line 1 is not a header",
		"Bad Name: m4rker":                 "line 1 is not a header",
		"Authorization: m4rker\x00\r\nX:1": "line 1 is not a header",
	} {
		do := HTTP{URL: "http://127.0.0.1:1/", Method: "POST", HeaderFile: headerFile(t, content)}
		for _, err := range []error{do.Check(t.Context()), do.Do(t.Context(), Change{})} {
			require.ErrorContains(t, err, want, "%q", content)
			assert.NotContains(t, err.Error(), "m4r")
		}
	}
	require.ErrorContains(t, HTTP{URL: "http://a/", Method: "GET", HeaderFile: "/nowhere"}.Check(t.Context()), "header_file: open /nowhere: no such file or directory")
	require.ErrorContains(t, HTTP{URL: "http://a/", Method: "GET", CACert: "/nowhere"}.Check(t.Context()), "ca_cert: open /nowhere")
	require.ErrorContains(t, HTTP{URL: "http://a/", Method: "GET", CACert: headerFile(t, "x")}.Check(t.Context()), "there is no certificate in")
	require.ErrorContains(t, HTTP{URL: "http://no-such-host.invalid/", Method: "GET"}.Check(t.Context()), "there is no host no-such-host.invalid")
}

func TestHTTPTrustsTheAuthorityThatItWasGiven(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	server.Config.ErrorLog = nil
	do := HTTP{URL: server.URL, Method: "POST", Timeout: time.Minute}
	require.ErrorContains(t, do.Do(t.Context(), Change{}), "certificate")
	do.CACert = headerFile(t, "\uFEFF"+string(pemOf(server.Certificate().Raw))) // As Windows saves it.
	require.NoError(t, do.Do(t.Context(), Change{}))
}

func TestHTTPIsEndedAfterItsTimeout(t *testing.T) {
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	defer server.Close()
	defer close(stop)
	err := HTTP{URL: server.URL, Method: "POST", Timeout: 20 * time.Millisecond, Retries: 1}.Do(t.Context(), Change{})
	require.ErrorContains(t, err, "no answer within 20ms")
}

func TestHTTP_LogsTheAnswerOnlyWhenAskedToAndWithoutWhatWasSent(t *testing.T) {
	token := strings.Repeat("t0ken-Value/", 25) // 300 bytes
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintln(w, "no:", strings.Repeat(".", 3800), r.Header.Get("X-Token"), r.URL.RawQuery, r.URL.Query().Get("key"), password, r.Header.Get("Authorization"), "and s3cret-of-the-file")
	}))
	defer server.Close()
	do := HTTP{
		URL: strings.Replace(server.URL, "http://", "http://u:passw0rd@", 1) + "/?key=kee+p%26me", Method: "POST", Timeout: time.Minute,
		HeaderFile: headerFile(t, "X-Token: Bearer "+token+"\n"),
	}
	change := Change{Hidden: []string{"s3cret-of-the-file"}}
	want := "POST " + strings.Replace(server.URL, "http://", "http://u:xxxxx@", 1) + "/: the answer is 403 Forbidden, not 2xx"
	err := do.Do(t.Context(), change)
	require.EqualError(t, err, want)
	assert.Equal(t, []any{"printed", "1 line, 4192 bytes", "hint", "set show_output = true in the reload block to log the answer"}, redact.OutputOf(err))
	do.ShowOutput = true
	err = do.Do(t.Context(), change)
	require.EqualError(t, err, want)
	var failed *redact.OutputError
	require.ErrorAs(t, err, &failed)
	assert.Regexp(t, `^no: \.+ \[redacted\] Basic \[redacted\] and \[redacted\]$`, failed.Output)
	err = do.Do(t.Context(), Change{})
	require.ErrorAs(t, err, &failed)
	assert.Empty(t, failed.Output, "the values to hide are not known")
}

func TestHTTP_ErrorsDoNotQuoteAnAnswerThatIsNotHTTP(t *testing.T) {
	for name, answer := range map[string]string{
		"no HTTP":     "m4rker m4rker m4rker\r\n\r\n",
		"bad version": "HTTP/m4rker 200 OK\r\n\r\n",
		"bad status":  "HTTP/1.1 m4rker OK\r\n\r\n",
		"bad header":  "HTTP/1.1 200 OK\r\nm4rker\r\n\r\n",
		"bad length":  "HTTP/1.1 200 OK\r\nContent-Length: m4rker\r\n\r\n",
		"encoding":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: m4rker\r\n\r\n",
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte(answer))
			_ = conn.Close()
		}()
		err = HTTP{URL: "http://" + listener.Addr().String(), Method: "POST", Timeout: time.Minute}.Do(t.Context(), Change{})
		_ = listener.Close()
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "m4rker", name)
	}
}
