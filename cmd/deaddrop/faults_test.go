package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// patient is one agent with one file and one service that is told of changes,
// under watch while faults happen to it.
type patient struct {
	*rig
	*running
	good  []string // what may stand in the file
	value int      // the last that was put
	drops int      // how many of them have arrived
	fds   int
	cpu   time.Duration
	began time.Time
}

// newPatient starts an agent that logs in at address, and lets it drop its file.
func newPatient(t *testing.T, s *vaulttest.Server, address string, env ...string) *patient {
	t.Helper()
	r := newRig(t, s)
	r.env = append(append(r.env, "VAULT_ADDR="+address), env...)
	p := &patient{rig: r}
	p.put()
	r.service()
	p.running = r.start("run", "--config", r.write("deaddrop.hcl", r.Login(r.dir)+interval+`
drop "env" {
  secret      = "`+r.Path("nexa")+`"
  destination = "nexa.env"
`+reload+`}
`))
	p.arrives()
	p.fds, p.cpu, p.began = p.descriptors(), p.processor(), time.Now()
	p.watchFile(t)
	return p
}

// put writes the next value of the secret.
func (p *patient) put() {
	p.t.Helper()
	p.value++
	p.good = append(p.good, fmt.Sprintf("KEY=%d\n", p.value))
	p.Put("nexa", map[string]any{"KEY": p.value})
}

// arrives waits for the last value to stand in the file.
func (p *patient) arrives() {
	p.t.Helper()
	want := fmt.Sprintf("KEY=%d\n", p.value)
	p.eventually("the file holds the last value", func() bool { return p.rig.read("nexa.env") == want })
	p.drops++
}

// watchFile looks at the file all the time: it must always be there and whole.
func (p *patient) watchFile(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			content, err := os.ReadFile(p.path("nexa.env"))
			if err != nil {
				content = []byte(err.Error())
			}
			mu.Lock()
			seen[string(content)] = true
			mu.Unlock()
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		for content := range seen {
			assert.Contains(t, p.good, content, "the file was lost, emptied or broken")
		}
	})
}

// recovered checks that the patient is as well as before: a change arrives, the
// service was told once for each change and never else, nothing is left open,
// and it did not run hot.
func (p *patient) recovered() {
	t := p.t
	t.Helper()
	p.put()
	p.arrives()
	p.eventually("the service was told", func() bool { return len(p.rig.read("hups")) >= p.drops-1 })
	elapsed, used := time.Since(p.began), p.processor()-p.cpu
	assert.Less(t, used, elapsed/2+time.Second, "it was busy")
	p.eventually("no descriptors are left open", func() bool { return p.descriptors() <= p.fds+2 })
	p.stop()
	assert.Len(t, p.rig.read("hups"), p.drops-1, "one signal for each change")
	assert.Less(t, strings.Count(p.log(), "\n"), 60, "it says why once, not at every try")
	left, err := filepath.Glob(p.path(".deaddrop-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func (p *patient) descriptors() int {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	return len(fds)
}

// processor is the time that the agent has spent on processors.
func (p *patient) processor() time.Duration {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // ticks of USER_HZ, 100 a second
}

func (p *patient) says(text string) {
	p.t.Helper()
	p.eventually("the log says: "+text, func() bool { return strings.Contains(p.log(), text) })
}

func TestRunAndRenderWaitForAVaultThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t, "-state", t.TempDir())
	r := newRig(t, s)
	r.Put("nexa", map[string]any{"A": "1"})
	s.Stop()

	run := r.start("run", "--secret", r.Path("nexa"), "--out", "run.env", "--interval", "1s")
	once := r.start("render", "--secret", r.Path("nexa"), "--out", "once.env")
	for _, p := range []*running{run, once} {
		r.eventually("it says so", func() bool { return strings.Contains(p.log(), "is Vault running at") })
	}
	s.Restart(t)
	require.NoError(t, once.cmd.Wait())
	assert.Equal(t, "A=1\n", r.read("once.env"))
	r.eventually("run goes on, too", func() bool { return r.read("run.env") == "A=1\n" })
	run.stop()
	assert.Equal(t, 1, strings.Count(run.log(), "trying again until it works"), "said once")
	assert.Equal(t, 1, strings.Count(run.log(), "recovered"))
}

func TestRunSurvivesASealedVault(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t)
	p := newPatient(t, s, s.Address)
	require.NoError(t, s.Client.Sys().Seal())
	p.says("Vault is sealed; unseal it")
	_, err := s.Client.Sys().Unseal(s.UnsealKeys[0])
	require.NoError(t, err)
	p.recovered()
}

func TestRunSurvivesAVaultThatIsKilledAndRestarted(t *testing.T) {
	t.Parallel()
	s := vaulttest.Own(t, "-state", t.TempDir())
	p := newPatient(t, s, s.Address)
	for range 2 {
		s.Kill()
		p.says("is Vault running at")
		s.Restart(t)
		p.put()
		p.arrives()
	}
	p.recovered()
}

func TestRunSurvivesTheDeathOfARaftLeader(t *testing.T) {
	t.Parallel()
	nodes := vaulttest.Cluster(t, 3)
	leader := vaulttest.Leader(t, nodes)
	others := slices.DeleteFunc(slices.Clone(nodes), func(s *vaulttest.Server) bool { return s == leader })
	p := newPatient(t, others[0], others[0].Address)
	leader.Kill()
	vaulttest.Leader(t, others)
	p.put()
	p.arrives()
	// Back to three, and the other way round: the node that the agent talks to
	// is the one that goes.
	leader.Restart(t)
	vaulttest.Leader(t, nodes)
	others[0].Kill()
	p.says("is Vault running at")
	vaulttest.Leader(t, slices.DeleteFunc(slices.Clone(nodes), func(s *vaulttest.Server) bool { return s == others[0] }))
	others[0].Restart(t)
	p.recovered()
}

func TestRunSurvivesTheRevocationOfItsToken(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	p := newPatient(t, s, s.Address)
	for range 2 {
		p.RevokeTokens()
		p.put()
		p.arrives()
	}
	p.recovered()
	assert.NotContains(t, p.log(), "cannot be read", "a new login is all it takes")
}

func TestRunSurvivesTheRevocationOfItsSecretID(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	p := newPatient(t, s, s.Address)
	_, err := s.Client.Logical().Write("auth/approle/role/"+p.ID+"/secret-id/destroy", map[string]any{"secret_id": p.SecretID})
	require.NoError(t, err)
	p.RevokeTokens()
	p.says("check role id and secret id")
	old := p.SecretID
	p.NewSecretID()
	require.NotEqual(t, old, p.SecretID)
	p.write("secret_id", p.SecretID)
	p.recovered()
	assert.NotContains(t, p.log(), old)
	assert.NotContains(t, p.log(), p.SecretID)
}

func TestRunSurvivesAPolicyThatIsTakenAwayAndGivenBack(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	p := newPatient(t, s, s.Address)
	rules, err := s.Client.Sys().GetPolicy(p.ID)
	require.NoError(t, err)
	require.NoError(t, s.Client.Sys().PutPolicy(p.ID, `path "secret/data/elsewhere" { capabilities = ["read"] }`))
	p.says(`capabilities = [\"read\"]`)
	require.NoError(t, s.Client.Sys().PutPolicy(p.ID, rules))
	p.recovered()
}

func TestRunSurvivesABadNetwork(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]func(*vaulttest.Proxy){
		"answers that take long":             func(p *vaulttest.Proxy) { p.Poison("latency", `"latency": 1500, "jitter": 500`) },
		"answers that never come":            func(p *vaulttest.Proxy) { p.Poison("timeout", `"timeout": 0`) },
		"connections that are reset":         func(p *vaulttest.Proxy) { p.Poison("reset_peer", `"timeout": 0`) },
		"answers that are cut in the middle": func(p *vaulttest.Proxy) { p.Poison("limit_data", `"bytes": 200`) },
		"connections that are refused":       (*vaulttest.Proxy).Cut,
	} {
		for _, flags := range [][]string{nil, {"-tls"}} {
			t.Run(strings.Join(append([]string{name}, flags...), " "), func(t *testing.T) {
				t.Parallel()
				s := vaulttest.Own(t, flags...)
				proxy := s.Proxy(t)
				p := newPatient(t, s, proxy.Address, "VAULT_CLIENT_TIMEOUT=3s")
				poison(proxy)
				p.put()
				if name != "answers that take long" {
					p.says("cannot be read")
					proxy.Heal()
				}
				p.arrives()
				proxy.Heal()
				p.recovered()
			})
		}
	}
}

func TestRunSurvivesALongSleep(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	p := newPatient(t, s, s.Address)
	p.Role(map[string]any{"token_ttl": "2s", "token_max_ttl": "2s"})
	p.RevokeTokens() // The next one ends soon.
	p.put()
	p.arrives()
	// As when a machine is suspended: time goes on everywhere but here.
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	time.Sleep(4 * time.Second)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	p.recovered()
}

func TestAThousandSecretsOfWhichEveryTenthFails(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	r := newRig(t, s)
	r.AllowAll()
	const many = 1000
	var config strings.Builder
	config.WriteString(r.Login(r.dir) + interval)
	for i := range many {
		fmt.Fprintf(&config, "drop \"d%d\" {\n  secret = %q\n  destination = \"out/%d.env\"\n}\n", i, r.Path(fmt.Sprint("s", i)), i)
		if i%10 != 0 {
			r.Put(fmt.Sprint("s", i), map[string]any{"KEY": i})
		}
	}
	p := r.start("run", "--config", r.write("deaddrop.hcl", config.String()))
	files := func() int {
		found, err := filepath.Glob(r.path("out/*.env"))
		require.NoError(t, err)
		return len(found)
	}
	r.eventually("the other nine hundred are written", func() bool { return files() == 900 })
	// A busy machine needs several batches, of which each is a few lines and a number.
	assert.Less(t, strings.Count(p.log(), "\n"), 100, "a hundred failures are a few lines and a number")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGUSR1))
	r.eventually("status", func() bool { return strings.Count(p.log(), "status of a drop") == many })
	assert.Equal(t, 900, strings.Count(p.log(), "state=current")+strings.Count(p.log(), `"state":"current"`))
	for i := 0; i < many; i += 10 {
		r.Put(fmt.Sprint("s", i), map[string]any{"KEY": i})
	}
	r.eventually("and the rest, once they are there", func() bool { return files() == many })
	p.stop()
}

func TestAChangedVaultBlockThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	s := vaulttest.Shared(t)
	p := newPatient(t, s, s.Address)
	good := p.rig.read("deaddrop.hcl")
	p.rig.write("deaddrop.hcl", strings.Replace(good, "vault { address", "vault {\n  ca_cert = \"nowhere.pem\"\n}\n# { address", 1))
	p.says("configuration refused, keeping the old one")
	p.rig.write("deaddrop.hcl", "# no change\n"+good)
	p.recovered()
}
