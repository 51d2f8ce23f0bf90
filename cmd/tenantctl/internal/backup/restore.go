package backup

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// RestoreOptions say what is restored, and how.
type RestoreOptions struct {
	// Part is what is restored.
	Part *Part
	// DryRun writes nothing.
	DryRun bool
	// SecretsOnly leaves out policies, roles, entities and the engine's settings.
	SecretsOnly bool
	// RightsOnly leaves out secrets.
	RightsOnly bool
	// Overwrite writes the backup's newest content as a new version where Vault has
	// something newer or something else, and makes policies, roles, entities and the
	// engine's settings what they are in the backup. Without it, what is missing is
	// made, and what differs stays.
	Overwrite bool
	// Renumber gives the versions new numbers, so that none is needed for a gap.
	Renumber bool
	// MaxPlaceholders is how many versions of a secret may be made up and destroyed
	// so that the others get their numbers.
	MaxPlaceholders int
	// Total is how many records there are, for Progress.
	Total    int
	Progress Progress
}

// Action is what was done, or is to be done, with a record.
type Action struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Do   string `json:"action"`
	Why  string `json:"detail,omitempty"`
	// Changes are those of rights and settings, where something is written.
	Changes []Change `json:"changes,omitempty"`
}

// Change is one field that needs consent: of a policy, a login, a role or an entity, which
// give rights, or of the settings of the engine or a secret, which can make Vault delete
// later versions. It holds no secret, and no role id.
type Change struct {
	Field string `json:"field"`
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
}

type restorer struct {
	v *vault.Client
	RestoreOptions
	report func(Action)

	mu     sync.Mutex // for what follows, and report
	mounts *mounts
	// roles are the names of the backup's roles, by their role ids.
	roles map[string]string
	done  int
}

// Restore puts back what a verified backup holds. report is told of every record,
// one at a time. When it fails, what was restored until then stays, and doing it
// again goes on from there.
func Restore(ctx context.Context, v *vault.Client, r *archive.Reader, o RestoreOptions, report func(Action)) error {
	re := &restorer{v: v, RestoreOptions: o, report: report, roles: map[string]string{}}
	if !o.SecretsOnly {
		var err error
		if re.mounts, err = readMounts(ctx, v); err != nil {
			return err
		}
	}
	next, err := r.Next()
	for err == nil {
		// The records of a kind are done at the same time, one kind after the other.
		next, err = re.batch(ctx, r, next)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// batch restores the records of one kind, the first of which has been read, and
// returns the first one of the next kind, or io.EOF.
func (re *restorer) batch(ctx context.Context, r *archive.Reader, next archive.Record) (archive.Record, error) {
	kind := kindOf(next)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(vault.Workers)
	var err error
	for err == nil && kindOf(next) == kind && ctx.Err() == nil {
		record := next
		g.Go(func() error { return re.record(ctx, record) })
		next, err = r.Next()
	}
	stopped := ctx.Err()
	if failed := g.Wait(); failed != nil {
		return archive.Record{}, failed
	}
	if stopped != nil {
		return archive.Record{}, stopped
	}
	return next, err
}

func kindOf(r archive.Record) string {
	switch {
	case r.Engine != nil:
		return "engine"
	case r.Policy != nil:
		return "policy"
	case r.Secret != nil:
		return "secret"
	case r.Role != nil:
		return "role"
	case r.Entity != nil:
		return "entity"
	}
	return ""
}

func (re *restorer) record(ctx context.Context, r archive.Record) error {
	if re.Part.Has(r) && re.wants(r) {
		a, err := re.restore(ctx, r)
		if err != nil {
			return err
		}
		re.tell(a)
	}
	re.mu.Lock()
	defer re.mu.Unlock()
	if re.done++; re.Progress != nil {
		re.Progress(re.done, re.Total)
	}
	return nil
}

func (re *restorer) wants(r archive.Record) bool {
	if r.Secret != nil {
		return !re.RightsOnly
	}
	return !re.SecretsOnly
}

func (re *restorer) tell(a Action) {
	re.mu.Lock()
	defer re.mu.Unlock()
	re.report(a)
}

func (re *restorer) restore(ctx context.Context, r archive.Record) (Action, error) {
	switch {
	case r.Engine != nil:
		return re.engine(ctx, r.Engine)
	case r.Policy != nil:
		return re.policy(ctx, r.Policy)
	case r.Secret != nil:
		return re.secret(ctx, r.Secret)
	case r.Role != nil:
		return re.role(ctx, r.Role)
	}
	return re.entity(ctx, r.Entity)
}

// write writes, unless it is a dry run.
func (re *restorer) write(ctx context.Context, path string, data map[string]any) error {
	if re.DryRun {
		return nil
	}
	_, err := re.v.Write(ctx, path, data)
	return err
}

func (re *restorer) engine(ctx context.Context, e *archive.Engine) (Action, error) {
	a := Action{Kind: "engine", Name: e.Mount, Do: Unchanged}
	if e.Mount != tenant.Mount {
		a.Do, a.Why = Skip, "the tenants are at "+tenant.Mount
		return a, nil
	}
	answer, err := re.v.Read(ctx, e.Mount+"/config", nil)
	if err != nil {
		return a, err
	}
	if answer == nil {
		return a, fmt.Errorf("reading %s/config: %w; mount KV v2 there first, such as with \"tenantctl setup\"", e.Mount, vault.ErrMissing)
	}
	is, err := vault.Decode[archive.Settings](answer.Data)
	if err != nil {
		return a, fmt.Errorf("reading %s/config: %w", e.Mount, err)
	}
	a.Do, a.Why = re.differing(*is == e.Settings, "its settings are others in Vault")
	if a.Do == Skip && isDefault(*is) {
		a.Do, a.Why = Update, "nobody has set anything in Vault"
	}
	if a.Do != Update {
		return a, nil
	}
	a.Changes = kvChanges(e.Settings, is)
	return a, re.write(ctx, e.Mount+"/config", settings(e.Settings))
}

// kvChanges are the settings that become others than in Vault, or than the defaults for a
// new secret, for which is is nil.
func kvChanges(want archive.Settings, is *archive.Settings) []Change {
	was := archive.Settings{}
	if is != nil {
		was = *is
	}
	var changes []Change
	add := func(field, before, after string) {
		if before == after {
			return
		}
		if is == nil {
			before = ""
		}
		changes = append(changes, Change{field, before, after})
	}
	add("max_versions", strconv.Itoa(was.MaxVersions), strconv.Itoa(want.MaxVersions))
	add("cas_required", strconv.FormatBool(was.CASRequired), strconv.FormatBool(want.CASRequired))
	// Vault answers "0s" for what was never set.
	add("delete_version_after", cmp.Or(was.DeleteVersionAfter, "0s"), cmp.Or(want.DeleteVersionAfter, "0s"))
	return changes
}

// differing says what is done with something that is in Vault.
func (re *restorer) differing(same bool, why string) (do, because string) {
	switch {
	case same:
		return Unchanged, ""
	case re.Overwrite:
		return Update, why
	}
	return Skip, why
}

func settings(s archive.Settings) map[string]any {
	return map[string]any{"max_versions": s.MaxVersions, "cas_required": s.CASRequired, "delete_version_after": s.DeleteVersionAfter}
}

func (re *restorer) policy(ctx context.Context, p *archive.Policy) (Action, error) {
	a := Action{Kind: "policy", Name: p.Name, Do: Create}
	text, ok, err := readPolicy(ctx, re.v, p.Name)
	if err != nil {
		return a, err
	}
	switch {
	case builtIn(p.Name):
		a.Do, a.Why = Skip, "it is Vault's own"
		return a, nil
	case ok:
		a.Do, a.Why = re.differing(text == p.Text, "it is another one in Vault")
		if a.Do == Update && !re.Part.All() {
			a.Do, a.Why = Skip, "it is another one in Vault, and is not for the tenant alone; restore it without --tenant"
		}
	}
	if a.Do != Create && a.Do != Update {
		return a, nil
	}
	a.Changes = []Change{{"text", text, p.Text}}
	return a, re.write(ctx, "sys/policies/acl/"+p.Name, map[string]any{"policy": p.Text})
}

func (re *restorer) secret(ctx context.Context, s *archive.Secret) (Action, error) {
	a := Action{Kind: "secret", Name: tenant.Mount + "/" + s.Path}
	if re.Renumber {
		all := s.Current
		if s = renumber(s); s.Current == 0 && all > 0 {
			a.Do, a.Why = Skip, "none of its versions has content"
			return a, nil
		}
	}
	f, err := re.find(ctx, s)
	if err != nil {
		return a, err
	}
	st := decide(s, f, re.Overwrite)
	if n := placeholders(s, f, st); n > re.MaxPlaceholders {
		st = step{do: Skip, why: fmt.Sprintf(
			"its version %d needs %s, more than --max-placeholders %d; --renumber needs none", s.Current, plural.Of(n, "placeholder"), re.MaxPlaceholders)}
	}
	a.Do, a.Why = st.do, st.why
	if st.meta {
		var is *archive.Settings
		if f != nil {
			is = &f.Settings
		}
		a.Changes = kvChanges(s.Settings, is)
	}
	if re.DryRun {
		return a, nil
	}
	err = re.apply(ctx, s, f, st)
	if errors.Is(err, vault.ErrConflict) {
		return Action{Kind: a.Kind, Name: a.Name, Do: Skip, Why: "somebody has changed it meanwhile"}, nil
	}
	return a, err
}

// find reads what Vault has of a secret: of its versions, those that the backup
// has too, and its newest.
func (re *restorer) find(ctx context.Context, s *archive.Secret) (*found, error) {
	m, err := readMetadata(ctx, re.v, s.Path)
	if err != nil || m == nil {
		return nil, err
	}
	f := &found{m, map[int]archive.Content{}}
	if m.Current == 0 {
		return f, nil
	}
	numbers := []int{m.Current}
	newest := s.Newest()
	if err := re.contents(ctx, s.Path, f, numbers); err != nil {
		return nil, err
	}
	if newest != nil && newest.Data != nil && bytes.Equal(newest.Data, f.data[m.Current]) {
		return f, nil // The rest does not matter.
	}
	return f, re.contents(ctx, s.Path, f, m.numbers())
}

func (re *restorer) contents(ctx context.Context, path string, f *found, numbers []int) error {
	for _, number := range numbers {
		about, ok := f.version(number)
		if _, read := f.data[number]; read || !ok || about.Destroyed {
			continue
		}
		data, _, err := readVersion(ctx, re.v, path, number)
		if err != nil {
			return err
		}
		f.data[number] = data
	}
	return nil
}

// placeholders is how many versions have to be made up.
func placeholders(s *archive.Secret, f *found, st step) int {
	if st.do != Create && st.do != Append {
		return 0
	}
	from := 0
	if f != nil {
		from = f.Current
	}
	n := s.Current - from
	for _, v := range s.Versions {
		if v.Number > from && v.Data != nil {
			n--
		}
	}
	return n
}

func (re *restorer) apply(ctx context.Context, s *archive.Secret, f *found, st step) error {
	if st.meta {
		data := settings(s.Settings)
		data["custom_metadata"] = s.Custom
		if s.Custom == nil {
			data["custom_metadata"] = map[string]string{}
		}
		if err := re.write(ctx, tenant.Mount+"/metadata/"+s.Path, data); err != nil {
			return err
		}
	}
	switch st.do {
	case Overwrite:
		return re.put(ctx, s.Path, f.Current, st.data)
	case Create, Append:
		return re.replay(ctx, s, f)
	case Unchanged:
		return re.destroy(ctx, s.Path, leftOver(f))
	}
	return nil
}

// leftOver are placeholders of a restore that was interrupted.
func leftOver(f *found) []int {
	var numbers []int
	if f != nil {
		for number, data := range f.data {
			if isPlaceholder(data) {
				numbers = append(numbers, number)
			}
		}
	}
	return numbers
}

// replay writes the versions that are missing in Vault, in order. Each is only
// written if the one before it is the newest: nobody's write is lost.
func (re *restorer) replay(ctx context.Context, s *archive.Secret, f *found) error {
	at := 0
	if f != nil {
		at = f.Current
	}
	gone := leftOver(f)
	for _, v := range append(s.Versions[:len(s.Versions):len(s.Versions)], archive.Version{Number: s.Current + 1}) {
		for ; at < v.Number-1; at++ {
			if err := re.put(ctx, s.Path, at, placeholder); err != nil {
				return err
			}
			gone = append(gone, at+1)
		}
		if v.Number <= at || v.Data == nil {
			continue // It is there, or a placeholder comes before the next one.
		}
		if err := re.destroy(ctx, s.Path, gone); err != nil {
			return err
		}
		gone = nil
		if err := re.put(ctx, s.Path, at, v.Data); err != nil {
			return err
		}
		at++
	}
	return re.destroy(ctx, s.Path, gone)
}

// put writes the version after one. It is an [vault.ErrConflict] if that is not
// the newest any more.
func (re *restorer) put(ctx context.Context, path string, after int, data archive.Content) error {
	err := re.write(ctx, tenant.Mount+"/data/"+path, map[string]any{
		"data": json.RawMessage(data), "options": map[string]any{"cas": after},
	})
	if vault.IsCAS(err) {
		return fmt.Errorf("%w: %w", vault.ErrConflict, err)
	}
	return err
}

func (re *restorer) destroy(ctx context.Context, path string, numbers []int) error {
	if len(numbers) == 0 {
		return nil
	}
	return re.write(ctx, tenant.Mount+"/destroy/"+path, map[string]any{"versions": numbers})
}
