package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// between is a proxy in front of Vault that calls a function before it hands a request
// on, and one after Vault has answered.
func between(t *testing.T, address string, before, after func(w http.ResponseWriter, r *http.Request)) string {
	t.Helper()
	target, err := url.Parse(address)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		before(w, r)
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		after(w, r)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
}

func nothing(http.ResponseWriter, *http.Request) {}

// unchanged makes sure that the old root token is the only one, and where it was.
func (s *site) unchanged(root string, keysFile string) {
	s.t.Helper()
	assert.Equal(s.t, []string{"root"}, s.policiesOf(root))
	assert.Equal(s.t, 1, s.rootTokens(root), "none is left that nobody knows")
	assert.Equal(s.t, keysFile, s.read("keys.json"))
	s.idle()
}

func TestATokenThatCannotBePrintedEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	before := s.read("keys.json")
	for _, flags := range []string{"", "-o json", "--admin"} {
		args := append([]string{"rotate-root", "--keys-file", "keys.json", "--print"}, strings.Fields(flags)...)
		errs, code := full(t, s.env, args...)
		assert.Equal(t, exitFailed, code, errs)
		assert.Contains(t, errs, "printing the new token", flags)
		assert.Contains(t, errs, "the new token was revoked, and the old root token still works", flags)
		s.unchanged(set.RootToken, before)

		cmd := command(t, s.env, args...)
		r, w, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, r.Close()) // Nobody reads.
		cmd.Stdout = w
		assert.Error(t, cmd.Run())
		require.NoError(t, w.Close())
		assert.Equal(t, exitFailed, cmd.ProcessState.ExitCode(), "it gets to its end, and is not ended by a signal")
		s.unchanged(set.RootToken, before)
	}
	errs, code := full(t, s.env, "rotate-root", "--keys-file", "keys.json", "--print", "--out", "root.token")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, errs, "so does the new token")
	assert.Contains(t, errs, "which is in root.token")
	assert.Equal(t, []string{"root"}, s.policiesOf(s.read("root.token")))
	assert.Equal(t, []string{"root"}, s.policiesOf(set.RootToken))

	errs, code = full(t, s.env, "login", "--password-file", "credentials/admin.password", "--print-token")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, errs, "printing the token, which is in "+s.path(".vault-token"))
}

func TestATokenThatCannotBeWrittenEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	before := s.read("keys.json")
	require.NoError(t, os.Mkdir(s.path("folder"), 0o700))
	// The folder goes between the check of it and the token.
	s.env = append(s.env, "VAULT_ADDR="+between(t, s.s.Address, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/generate-root/update") {
			_ = os.RemoveAll(s.path("folder"))
			_ = os.WriteFile(s.path("folder"), nil, 0o600)
		}
	}, nothing))
	out, code := s.tenantctl("", "rotate-root", "--keys-file", "keys.json", "--out", "folder/root.token")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, out, "writing folder/root.token")
	assert.Equal(t, 1, strings.Count(out, "writing folder/root.token"))
	assert.Contains(t, out, "the new token was revoked")
	s.unchanged(set.RootToken, before)
}

func TestAFullDiskIsSeenBeforeThereIsAToken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	before := s.read("keys.json")
	disk := s.path("disk")
	require.NoError(t, os.Mkdir(disk, 0o700))
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Skipf("a small disk takes a user who may mount one: %s", out)
	}
	t.Cleanup(func() { assert.NoError(t, exec.Command("umount", disk).Run()) })
	s.write("disk/keys.json", before)
	err := os.WriteFile(s.path("disk/filling"), make([]byte, 1<<20), 0o600)
	require.ErrorIs(t, err, syscall.ENOSPC)
	for _, args := range []string{"--keys-file keys.json --out disk/root.token", "--keys-file disk/keys.json --out root.token"} {
		out, code := s.tenantctl("", append([]string{"rotate-root"}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, code)
		assert.Contains(t, out, "no space left on device")
		assert.NoFileExists(t, s.path("root.token"))
		s.unchanged(set.RootToken, before)
	}
	entries, err := os.ReadDir(disk)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "what was tried is gone")
}

func TestAKeysFileThatCannotBeReplacedIsSeenBeforeThereIsAToken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	before := s.read("keys.json")
	require.NoError(t, os.Symlink("keys.json", s.path("link")))
	require.NoError(t, os.Link(s.path("keys.json"), s.path("hard")))
	for args, say := range map[string]string{
		"--keys-file link --print":                       "link is a symbolic link",
		"--keys-file keys.json --out keys.json --force":  "is the --keys-file",
		"--keys-file keys.json --out ./hard --force":     "is the --keys-file",
		"--keys-file link --out keys.json --force":       "is the --keys-file",
		"--keys-file keys.json --out keys.json --print ": "is there already",
	} {
		out, code := s.tenantctl("", append([]string{"rotate-root"}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, code, "%s: %s", args, out)
		assert.Contains(t, out, say, args)
		s.unchanged(set.RootToken, before)
	}
	s.silent(append(set.Keys, set.RootToken)...)
}

func TestASignalDoesNotPartATokenFromItsOwner(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	process := make(chan *os.Process, 1)
	var stopped atomic.Bool
	// The signal comes when Vault has made the token, and nobody has it yet.
	s.env = append(s.env, "VAULT_ADDR="+between(t, s.s.Address, nothing, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/auth/token/lookup-self" && r.Header.Get("X-Vault-Token") != set.RootToken && stopped.CompareAndSwap(false, true) {
			_ = (<-process).Signal(syscall.SIGTERM)
			select { // One that gives up at a signal does so now.
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
		}
	}))
	cmd := command(t, s.env, "rotate-root", "--keys-file", "keys.json", "--out", "root.token")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	process <- cmd.Process
	require.NoError(t, cmd.Wait(), out.String())
	assert.True(t, stopped.Load())
	assert.Nil(t, s.policiesOf(set.RootToken))
	assert.Equal(t, 1, s.rootTokens(strings.TrimSpace(s.read("root.token"))))
	s.closed()
}

func TestOtherRootTokensAreTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	other, err := s.s.Client.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{"root"}})
	require.NoError(t, err)
	say := `end it with "vault token revoke -accessor ` + other.Auth.Accessor
	out := s.must("rotate-root", "--keys-file", "keys.json", "--out", "root.token")
	assert.Contains(t, out, say)
	assert.Equal(t, 1, strings.Count(out, "another root token lives"))
	s.env = append(s.env, "VAULT_TOKEN="+strings.TrimSpace(s.read("root.token")))
	said, errs, code := run(t, s.env, "rotate-root", "--admin", "--print", "-o", "json")
	require.Zero(t, code, errs)
	var answer rotateResult
	require.NoError(t, json.Unmarshal([]byte(said), &answer))
	assert.Equal(t, 1, answer.Revoked)
	assert.NotEmpty(t, answer.Token)
	assert.Contains(t, errs, say)
	s.silent(other.Auth.ClientToken)
}

func TestALostRootTokenIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	var keys atomic.Int32
	s.env = append(s.env, "VAULT_ADDR="+between(t, s.s.Address, nothing, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/generate-root/update") && keys.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
	}))
	out, code := s.tenantctl("", "rotate-root", "--keys-file", "keys.json", "--out", "root.token")
	assert.Equal(t, exitFailed, code, "it does not pass")
	assert.Contains(t, out, "there may be a root token now that nobody has")
	require.Equal(t, 1, strings.Count(out, "another root token lives"))
	_, accessor, _ := strings.Cut(out, "revoke -accessor ")
	require.NoError(t, s.s.Client.Auth().Token().RevokeAccessor(strings.Fields(strings.ReplaceAll(accessor, `"`, " "))[0]))
	assert.Equal(t, 1, s.rootTokens(set.RootToken))
	assert.Equal(t, []string{"root"}, s.policiesOf(set.RootToken))
}

func TestTheTokenOfTheLoginIsToldToBeOld(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := s.ready()
	s.env = s.env[:3]
	s.write(".vault-token", set.RootToken)
	assert.Contains(t, s.must("rotate-root", "--keys-file", "keys.json", "--out", "root.token"), s.path(".vault-token")+" holds the old root token, which ends")
	now := s.read("root.token")
	s.write(".vault-token", now)
	assert.NotContains(t, s.must("rotate-root", "--keys-file", "keys.json", "--out", ".vault-token", "--force"), "holds the old root token")
	assert.Nil(t, s.policiesOf(now))

	s.write(".vault-token", now)
	out, code := s.tenantctl("", "status")
	assert.Equal(t, exitDenied, code)
	assert.Contains(t, out, "Token        (the token is invalid)\n")
	assert.Contains(t, out, `log in with "tenantctl login"`)
	assert.NotContains(t, out, "not allowed")
}

func TestWithoutATokenItIsSaidThatThereIsNone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ready()
	s.env = s.env[:3]
	for _, args := range []string{"tenant list", "credentials list", "backup --insecure-plaintext x"} {
		out, code := s.tenantctl("", strings.Fields(args)...)
		assert.Equal(t, exitDenied, code, "%s: %s", args, out)
		assert.Contains(t, out, `there is no token: set VAULT_TOKEN, or log in with "tenantctl login"`, args)
	}
	s.write(".vault-token", "hvs.of-another-vault")
	out, _ := s.tenantctl("", "tenant", "list")
	assert.NotContains(t, out, "there is no token")
}

// The proxy holds a request until the command has ended, so that the signal finds it
// waiting.
func TestASignalIsNotToldAsAVaultOutOfReach(t *testing.T) {
	t.Parallel()
	for args, path := range map[string]string{
		"tenant list": "/v1/secret/metadata/tenant", "setup --check": "/v1/sys/audit", "rotate-root --out root.token --keys-file keys.json": "/v1/sys/generate-root/attempt",
	} {
		s := newSite(t)
		s.ready()
		reached := make(chan struct{}, 10)
		s.env = append(s.env, "VAULT_ADDR="+between(t, s.s.Address, func(_ http.ResponseWriter, r *http.Request) {
			if strings.TrimSuffix(r.URL.Path, "/") == path {
				reached <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}
		}, nothing))
		cmd := command(t, s.env, strings.Fields(args)...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		require.NoError(t, cmd.Start())
		<-reached
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		var failed *exec.ExitError
		require.True(t, errors.As(cmd.Wait(), &failed), args)
		assert.Equal(t, exitFailed, failed.ExitCode(), args)
		assert.Contains(t, errs.String(), ": it was stopped by a signal", args)
		assert.NotContains(t, errs.String(), "cannot be reached", args)
	}
}

func TestTheAddressOfTheUserInterfaceIsRefused(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/ui", "/ui/vault/secrets", "/v1/"} {
		_, errs, code := run(t, []string{"VAULT_ADDR=http://127.0.0.1:8200" + path}, "status")
		assert.Equal(t, exitUsage, code)
		assert.Contains(t, errs, "give the address without "+path+", such as http://127.0.0.1:8200\n")
	}
}
