package watch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/session"
)

// errRemounted is the error of a read whose path was made for an engine that Vault does
// not have there any more: the request has to be resolved anew. errFilling is that of
// one that finds nothing in an engine which has just taken the place of another one.
var (
	errRemounted = errors.New("the engine there was replaced or converted")
	errFilling   = errors.New("the engine there has taken the place of another one, and may not be filled yet")
)

const (
	// recheck is how often, at most, a mount is asked for on account of secrets that
	// are known to be missing or denied.
	recheck = 10 * time.Second
	// filling is how long nothing is called missing in an engine that has just taken
	// the place of another one: it may still be filled.
	filling = time.Minute
)

// mount is an engine that is mounted at path, which ends in a slash.
type mount struct {
	path     string
	kind     string // of the engine
	version  string // of KV
	accessor string // another one for each engine that was ever mounted
	// denied is why Vault does not say what is mounted. Such a path is read as it is
	// written.
	denied error
}

func (m mount) isKV() bool { return m.kind == "kv" || m.kind == "generic" }

func (m mount) isKV2() bool { return m.kind == "kv" && m.version == "2" }

// handle stands for the mount, and for another one once it is converted or replaced.
func (m mount) handle() unique.Handle[string] {
	if m.denied != nil {
		return unique.Make("")
	}
	return unique.Make(m.path + "\x00" + m.kind + "\x00" + m.version + "\x00" + m.accessor)
}

// hasForeignAnswers reports whether the engine gives answers of another form than
// Vault's: sys/health and the like, and OpenID Connect's.
func (m mount) hasForeignAnswers() bool { return m.kind == "system" || m.kind == "identity" }

// split takes a path of the API of KV v2 apart: into the part that follows the mount,
// which says what is read of the secret, and the name. The part is "" for every other
// path.
func (m mount) split(path string) (part, name string) {
	rest := strings.TrimPrefix(path, m.path)
	if part, name, found := strings.Cut(rest, "/"); found && m.isKV2() && slices.Contains([]string{"data", "metadata", "subkeys"}, part) {
		return part, name
	}
	return "", rest
}

// hasEnvelope reports whether what is read at a path holds a version of a secret.
func (m mount) hasEnvelope(path string) bool {
	part, _ := m.split(path)
	return part == "data"
}

// logical is the path of a secret as the command "vault kv" takes it.
func (m mount) logical(path string) string {
	_, name := m.split(path)
	return m.path + name
}

// mounts are the engines of Vault, as far as it was asked for them.
type mounts struct {
	vault Vault
	// round is another one after each forget: what was found out in an earlier round
	// is asked for again.
	round atomic.Int64

	mu sync.Mutex
	// known has the mounts that are there, and those that were.
	known []*knownMount
	// asWritten are paths of which Vault does not say what is mounted there.
	asWritten map[string]deniedPath
}

type knownMount struct {
	mount
	asked   time.Time // when Vault was last asked for it, before its answer
	round   int64     // in which it was asked for
	gone    bool      // it was there
	changed time.Time // when it took the place of another one; zero where it has not
	former  string    // the kind of the first one that was known there
}

// deniedPath is why the mount of a path cannot be looked up.
type deniedPath struct {
	err   error
	round int64
	until time.Time // when it is looked up again; zero while the path can be read
}

// mostGone bounds how many mounts are remembered that were there, and mostAsWritten how
// many paths without a mount.
const (
	mostGone      = 1000
	mostAsWritten = 20_000
)

// of returns the mount of a path. It holds the lock while it asks Vault, so that a
// thousand secrets which start together ask once.
func (ms *mounts) of(ctx context.Context, path string) (mount, error) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	round := ms.round.Load()
	if known := ms.find(path); known != nil && known.round == round {
		return known.mount, nil
	}
	if d, is := ms.asWritten[path]; is && d.round == round && (d.until.IsZero() || time.Now().Before(d.until)) {
		return mount{denied: d.err}, nil
	}
	return ms.look(ctx, path, round)
}

// look asks Vault for the mount of a path, and notes the answer.
func (ms *mounts) look(ctx context.Context, path string, round int64) (mount, error) {
	now := &knownMount{asked: time.Now(), round: round}
	var err error
	switch now.mount, err = ms.ask(ctx, path); {
	case err != nil:
		return mount{}, err
	case now.denied != nil:
		if ms.asWritten == nil || len(ms.asWritten) > mostAsWritten {
			ms.asWritten = map[string]deniedPath{}
		}
		ms.asWritten[path] = deniedPath{now.denied, round, now.asked.Add(recheck)}
		return now.mount, nil
	}
	ms.note(now)
	return now.mount, nil
}

// note takes in what Vault has said of a mount. Mounts do not overlap, so others that do
// are gone.
func (ms *mounts) note(now *knownMount) {
	var same *knownMount
	for _, old := range ms.known {
		switch {
		case !strings.HasPrefix(old.path, now.path) && !strings.HasPrefix(now.path, old.path):
			continue
		case old.mount == now.mount:
			same = old
		case old.accessor == now.accessor && now.accessor != "": // It was converted, with all that is in it.
			now.changed, now.former = old.changed, old.former
		default:
			now.changed, now.former = now.asked, cmp.Or(old.former, old.kind)
		}
		old.gone = true
	}
	if same != nil {
		if same.round != now.round && now.asked.Sub(same.changed) > filling {
			same.changed, same.former = time.Time{}, same.kind // SIGHUP accepts the engine that is there now.
		}
		same.asked, same.round, same.gone = now.asked, now.round, false
		return
	}
	ms.known = append(slices.DeleteFunc(ms.known, func(old *knownMount) bool {
		return old.gone && (old.accessor == now.accessor || len(ms.known) > mostGone)
	}), now)
}

// find returns the mount that is known to be there, or nil.
func (ms *mounts) find(path string) *knownMount {
	for _, known := range ms.known {
		if !known.gone && strings.HasPrefix(path, known.path) {
			return known
		}
	}
	return nil
}

// readAsWritten notes that a path can be read though its mount is not known.
func (ms *mounts) readAsWritten(path string) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if d, is := ms.asWritten[path]; is {
		d.until = time.Time{}
		ms.asWritten[path] = d
	}
}

// confirm asks Vault again for the mount that a path was resolved with, unless it was
// asked since. It returns [errRemounted] where there is another one now or none, and an
// error where Vault does not say, or where the engine is so new that it may not be
// filled yet.
func (ms *mounts) confirm(ctx context.Context, path string, m mount, since time.Time) error {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m.denied != nil {
		delete(ms.asWritten, path)
		return m.denied
	}
	known, round := ms.find(path), ms.round.Load()
	if known == nil || known.mount != m {
		return errRemounted // Somebody else has found that out.
	}
	if known.round != round || !known.asked.After(since) {
		switch now, err := ms.look(ctx, path, round); {
		case err != nil:
			return err
		case now.denied != nil: // Another mount may be at a part of its path.
			known.gone = true
			return errRemounted
		case now != m:
			return errRemounted
		}
	}
	return known.checkFilled()
}

// checkFilled returns [errFilling] as long as the mount may lack what was in the one
// whose place it has taken. An engine of another kind has nothing of that.
func (m *knownMount) checkFilled() error {
	if m.isNew() || !m.changed.IsZero() && m.former != m.kind {
		return errFilling
	}
	return nil
}

// isNew reports whether the mount has just taken the place of another one.
func (m *knownMount) isNew() bool { return !m.changed.IsZero() && time.Since(m.changed) < filling }

// checkSettled returns [errFilling] as long as a list of the mount of a path, which is
// not empty, may lack something.
func (ms *mounts) checkSettled(path string) error {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if known := ms.find(path); known != nil && known.isNew() {
		return errFilling
	}
	return nil
}

// forget has every mount asked for again before it is used. It does not wait for a
// look-up that is under way.
func (ms *mounts) forget() { ms.round.Add(1) }

// ask asks Vault for the engine that a path is on. Where Vault denies that, the mount
// says so.
func (ms *mounts) ask(ctx context.Context, path string) (mount, error) {
	answer, err := ms.vault.Read(ctx, "sys/internal/ui/mounts/"+path, nil)
	err = withPolicy(err, "nothing is mounted at %q, or no policy of this login covers anything there", path)
	if IsPolicyDenial(err) {
		return mount{denied: err}, nil
	}
	if err == nil && answer.Foreign {
		err = session.NotVault("looking up the mount of " + path)
	}
	if err != nil {
		return mount{}, err
	}
	return parseMount(path, ms.vault.Namespace(), answer.Secret)
}

// parseMount reads the answer to a look-up. For a path that leads into a child namespace
// OpenBao answers with the namespaces before the mount, the client's own included; what
// is not the beginning of the path then is read as it is written.
func parseMount(path, namespace string, answer *api.Secret) (mount, error) {
	if answer == nil {
		return mount{}, fmt.Errorf("looking up the mount of %q: Vault answered nothing", path)
	}
	text := func(data map[string]any, key string) string {
		s, _ := data[key].(string)
		return s
	}
	at := text(answer.Data, "path")
	if namespace = strings.Trim(namespace, "/"); namespace != "" && !strings.HasPrefix(path, at) {
		at = strings.TrimPrefix(at, namespace+"/")
	}
	if at == "" || !strings.HasPrefix(path, at) {
		return mount{denied: fmt.Errorf("looking up the mount of %q: Vault does not say what is mounted there", path)}, nil
	}
	options, _ := answer.Data["options"].(map[string]any)
	return mount{path: at, kind: text(answer.Data, "type"), version: text(options, "version"), accessor: text(answer.Data, "accessor")}, nil
}

// isDeletedSubkeys reports whether an answer is that for the keys of a deleted version.
func (m mount) isDeletedSubkeys(path string, data map[string]any) bool {
	part, _ := m.split(path)
	keys, is := data["subkeys"]
	return is && keys == nil && part == "subkeys"
}

// isVersioned reports whether data is the envelope of KV v2.
func isVersioned(data map[string]any) bool {
	meta, _ := data["metadata"].(map[string]any)
	number, isNumber := meta["version"].(json.Number)
	_, hasData := data["data"]
	version, err := number.Int64()
	return isNumber && hasData && len(data) == 2 && err == nil && version > 0
}

// denied adds to a denial what a policy would have to say.
type denied struct {
	err  error
	hint string
}

func (e *denied) Error() string { return e.err.Error() + "; " + e.hint }
func (e *denied) Unwrap() error { return e.err }

// IsPolicyDenial reports whether a policy has denied a request, and not the token.
func IsPolicyDenial(err error) bool {
	return errors.Is(err, session.ErrDenied) && !session.IsInvalidToken(err) && !session.IsTransient(err)
}

func withPolicy(err error, format string, args ...any) error {
	if IsPolicyDenial(err) {
		return &denied{err, fmt.Sprintf(format, args...)}
	}
	return err
}
