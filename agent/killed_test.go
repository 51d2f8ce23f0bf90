package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/publish"
	"github.com/smarteros/deaddrop/agent/internal/reload"
	"github.com/smarteros/deaddrop/agent/watch"
	"github.com/smarteros/deaddrop/render"
	"github.com/smarteros/deaddrop/render/secret"
)

// killed is what an agent panics with that is killed.
type killed struct{ step string }

// machine is what outlives a killed agent: its files and journals, the service, and the
// leases in Vault.
type machine struct {
	t       *testing.T
	cfg     *config.Config
	dir     string
	tenants []any           // listed in Vault
	version int             // of the static secrets in Vault
	isGone  bool            // the optional secret is missing
	valid   map[string]bool // leases that Vault has issued and not revoked
	// inFlight are leases that were never written down: an agent that is killed before it can
	// leaves them to their end.
	inFlight []string
	issued   int

	steps  int // taken by all agents
	killAt int // the step at which an agent is killed; 0 for none
}

// step is a point at which an agent may be killed.
func (m *machine) step(name string) {
	m.steps++
	if m.steps == m.killAt {
		panic(killed{name})
	}
}

// pipelineUnderTest is a running agent.
type pipelineUnderTest struct {
	*pipeline
	*machine
	queue *reload.Queue
	// leases are those that Vault has issued to this agent, by request.
	leases map[*watch.Lease]render.Request
}

// stepper makes steps of what an agent writes down and logs: most of what it does is
// between two of them.
type stepper struct {
	slog.Handler
	machine *machine
}

func (s stepper) Enabled(context.Context, slog.Level) bool { return true }

func (s stepper) Handle(_ context.Context, r slog.Record) error {
	s.machine.step(r.Message)
	return nil
}

// recorder makes steps of the write before a change.
type recorder struct {
	*pipeline
	machine *machine
}

func (r recorder) Record(all []publish.Staged) {
	r.machine.step("before the journals are written")
	r.pipeline.Record(all)
	for _, staged := range all {
		for _, file := range staged.Files {
			for _, id := range r.issued(file).Leases {
				r.machine.inFlight = slices.DeleteFunc(r.machine.inFlight, func(other string) bool { return other == id })
			}
		}
	}
	r.machine.step("before the files are put in place")
}

// start starts an agent.
func (m *machine) start() *pipelineUnderTest {
	log := slog.New(stepper{slog.DiscardHandler, m})
	p := newPipeline(log)
	p.publisher = publish.New(recorder{p, m}, log)
	p.configure(m.cfg)
	return &pipelineUnderTest{p, m, reload.NewQueue(log), map[*watch.Lease]render.Request{}}
}

// run does what the loop of an agent does, until nothing is left to be done.
func (a *pipelineUnderTest) run(fresh bool) {
	for again := true; again; fresh = false {
		again = false
		a.round()
		requests := a.pipeline.readings.Unresolved()
		if fresh {
			requests = a.pipeline.readings.Requests()
		}
		if len(requests) > 0 {
			again = true
			batch := a.answer(requests)
			for request, reading := range batch {
				if lease := reading.Life.Lease; lease != nil {
					a.leases[lease] = request
				}
			}
			a.learn(batch)
		}
	}
	a.round()
}

func (a *pipelineUnderTest) round() {
	called := a.sync(a.t.Context())
	a.step("before the reloads are queued")
	a.queue.Retain(0, a.subscriptions())
	a.queue.Add(called...)
	_ = a.queue.Flush(a.t.Context())
	a.step("before the journals are brought up to date")
	a.noteReloads(a.queue.Pending())
	settled := a.settled()
	a.step("before leases are revoked")
	var revoked []string
	for lease, request := range a.leases { // As the watcher does.
		last, _ := a.pipeline.readings.Reading(request)
		isWanted := slices.Contains(a.pipeline.readings.Requests(), request) && last.Life.Lease == lease
		if !isWanted && !slices.Contains(settled.InFiles, lease) {
			revoked = append(revoked, lease.ID)
			delete(a.leases, lease)
		}
	}
	revoked = append(revoked, settled.Orphans...)
	slices.Sort(revoked)
	for _, id := range revoked {
		delete(a.valid, id)
		a.step("after a lease is revoked")
	}
	a.ledger.NoteRevoked(revoked)
	a.noteReloads(a.queue.Pending())
}

// answer is what Vault answers: a list of tenants, or a new lease.
func (m *machine) answer(requests []render.Request) watch.Batch {
	batch := watch.Batch{}
	for _, r := range requests {
		if r == render.List("secret/tenant") {
			batch[r] = watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"keys": m.tenants})}}
			continue
		}
		if r.Path == "secret/optional" && m.isGone {
			batch[r] = watch.Reading{Err: watch.ErrMissing}
			continue
		}
		if strings.HasPrefix(r.Path, "secret/") {
			batch[r] = watch.Reading{Secret: &render.Secret{Data: secret.Of(map[string]any{"version": m.version})}}
			continue
		}
		m.issued++
		id := fmt.Sprintf("%s/%d", r.Path, m.issued)
		m.valid[id] = true
		m.inFlight = append(m.inFlight, id)
		batch[r] = watch.Reading{
			Secret: &render.Secret{LeaseID: id, Data: secret.Of(map[string]any{"user": id})},
			Life:   watch.Life{Lease: &watch.Lease{ID: id, TTL: time.Hour}},
		}
	}
	return batch
}

// killedAt runs a function, and returns the step at which the agent was killed, or "".
func killedAt(run func()) (step string) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case killed:
			step = r.step
		default:
			panic(r)
		}
	}()
	run()
	return ""
}

// newMachine has a for_each block whose files hold leases. The service notes what it reads.
func newMachine(t *testing.T, dir string) *machine {
	t.Helper()
	file := filepath.Join(dir, "deaddrop.hcl")
	require.NoError(t, os.WriteFile(file, []byte(`state_dir = "`+dir+`/state"
drop "db" {
  for_each      = "secret/tenant/*"
  removal_grace = "0s"
  secret        = "database/creds/${each.key}"
  destination   = "`+dir+`/out/${each.key}/db.env"
}
drop "kv" {
  for_each      = "secret/tenant/*"
  removal_grace = "0s"
  secret        = "secret/tenant/${each.key}/kv"
  destination   = "`+dir+`/out/${each.key}/kv.env"
  reload {
    command = ["sh", "-c", "cat `+dir+`/out/${each.key}/kv.env >`+dir+`/read-${each.key} || rm `+dir+`/read-${each.key}"]
  }
}
drop "optional" {
  secret      = "secret/optional"
  destination = "`+dir+`/out/optional.env"
  on_missing  = "remove"
  reload {
    command = ["sh", "-c", "cat `+dir+`/out/optional.env >`+dir+`/read-optional || rm `+dir+`/read-optional"]
  }
}
`), 0o600))
	cfg, err := config.Load(file)
	require.NoError(t, err)
	return &machine{t: t, cfg: cfg, dir: dir, valid: map[string]bool{}}
}

// contentOf is the content of a file, or "" if there is none.
func (m *machine) contentOf(name string) string {
	content, _ := os.ReadFile(filepath.Join(m.dir, name))
	return string(content)
}

// history is a life of the machine: secrets that change, a tenant that departs, and a secret
// that is missing in the end.
func (m *machine) history() {
	m.tenants, m.version = []any{"demo/", "gone/"}, 1
	a := m.start()
	a.run(false)
	m.version = 2
	a.run(true)
	m.tenants, m.isGone = []any{"demo/"}, true
	a.run(true)
}

// TestPipeline_LosesNothingWhenKilledBetweenAnyTwoSteps kills an agent at each of its steps,
// and has another one go on.
func TestPipeline_LosesNothingWhenKilledBetweenAnyTwoSteps(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "none-is-asked")
	undisturbed := newMachine(t, t.TempDir())
	undisturbed.history()
	require.Greater(t, undisturbed.steps, 30)
	for at := 1; at <= undisturbed.steps; at++ {
		m := newMachine(t, t.TempDir())
		m.killAt = at
		step := killedAt(m.history)
		require.NotEmpty(t, step, "step %d", at)
		t.Run(fmt.Sprintf("step %d, %s", at, step), func(t *testing.T) {
			for _, id := range m.inFlight {
				delete(m.valid, id)
			}
			m.t, m.killAt, m.tenants = t, 0, []any{"demo/"}
			a := m.start()
			a.run(false)
			want, read := fmt.Sprintf("version=%d\n", m.version), ""
			if m.version == 2 { // The first file of all is no change.
				read = want
			}
			assert.Equal(t, want, m.contentOf("out/demo/kv.env"))
			assert.Equal(t, read, m.contentOf("read-demo"), "no reload is lost")
			if m.isGone {
				want, read = "", ""
			}
			assert.Equal(t, want, m.contentOf("out/optional.env"))
			assert.Equal(t, read, m.contentOf("read-optional"), "no reload is lost")
			assert.NoFileExists(t, filepath.Join(m.dir, "out/gone/db.env"))
			assert.NoFileExists(t, filepath.Join(m.dir, "out/gone/kv.env"))
			assert.NoFileExists(t, filepath.Join(m.dir, "read-gone"), "the service is reloaded after the removal")
			var inFiles []string
			for _, lease := range a.settled().InFiles {
				inFiles = append(inFiles, lease.ID)
			}
			assert.Equal(t, inFiles, slices.Sorted(maps.Keys(m.valid)), "no lease is forgotten")
			assert.Empty(t, a.blocks.Subscriptions())
		})
	}
}
