// Package backup reads what tenants have in a Vault into records of an archive,
// and puts them back.
package backup

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

const (
	// appRole is the mount of AppRole whose roles are backed up, and the type.
	appRole = "approle"
	// attempts is how often a secret is read again that somebody deletes and
	// makes anew at the same time.
	attempts = 10
)

// Progress is told how much is done. It is called by one goroutine at a time.
type Progress func(done, total int)

// ReadOptions say what is read.
type ReadOptions struct {
	// Tenants are the only ones, unless there are none.
	Tenants []string
	// Latest leaves out all versions but the newest.
	Latest   bool
	Progress Progress
}

type reader struct {
	v *vault.Client
	ReadOptions
	write func(archive.Record) error
}

// Head tells when and where a backup begins.
func Head(ctx context.Context, v *vault.Client, o ReadOptions) (archive.Header, error) {
	health, err := v.API().Sys().HealthWithContext(ctx)
	if err != nil {
		return archive.Header{}, v.Explain("asking for Vault's version", err)
	}
	return archive.Header{
		Created: time.Now().UTC().Truncate(time.Second),
		Vault:   health.Version, Cluster: health.ClusterName,
		Tenants: o.Tenants, Latest: o.Latest,
	}, nil
}

// Read gives all that is to be backed up to write, which is called by one
// goroutine at a time. Of the secrets, those that are under way are in memory, of
// the others the paths. What cannot be read is an error: a backup is complete.
func Read(ctx context.Context, v *vault.Client, o ReadOptions, write func(archive.Record) error) error {
	r := &reader{v: v, ReadOptions: o, write: write}
	paths, err := r.paths(ctx)
	if err != nil {
		return err
	}
	logins, err := r.logins(ctx)
	if err != nil {
		return err
	}
	if err := r.engine(ctx); err != nil {
		return err
	}
	if err := r.policies(ctx, logins); err != nil {
		return err
	}
	if err := r.secrets(ctx, paths); err != nil {
		return err
	}
	// Roles come before entities, whose aliases are their ids.
	for _, role := range logins.roles {
		if err := write(archive.Record{Role: role}); err != nil {
			return err
		}
	}
	for _, entity := range logins.entities {
		if err := write(archive.Record{Entity: entity}); err != nil {
			return err
		}
	}
	return nil
}

// paths lists all secrets, in order.
func (r *reader) paths(ctx context.Context) ([]string, error) {
	tops, err := r.v.List(ctx, tenant.Mount+"/metadata/"+tenant.Folder)
	if err != nil {
		return nil, err
	}
	for _, id := range r.Tenants {
		if !slices.Contains(tops, id) && !slices.Contains(tops, id+"/") {
			return nil, fmt.Errorf("the tenant %s has no secrets in Vault: %w", id, vault.ErrMissing)
		}
	}
	if len(r.Tenants) > 0 {
		tops = slices.DeleteFunc(tops, func(name string) bool {
			return !slices.Contains(r.Tenants, strings.TrimSuffix(name, "/"))
		})
	}
	lists := make([][]string, len(tops))
	err = vault.Each(ctx, len(tops), func(ctx context.Context, i int) (err error) {
		lists[i], err = r.walk(ctx, tenant.Folder+"/", tops[i])
		return err
	})
	paths := slices.Concat(lists...)
	slices.Sort(paths)
	return paths, err
}

// walk lists what is below a name in a folder, or the name itself.
func (r *reader) walk(ctx context.Context, folder, name string) ([]string, error) {
	if full := strings.TrimSuffix(folder+name, "/"); path.Clean(full) != full {
		return nil, fmt.Errorf("the secret %q has a path that no client can ask for: move it, and try again", folder+name)
	}
	if !strings.HasSuffix(name, "/") {
		return []string{folder + name}, nil
	}
	folder += name
	names, err := r.v.List(ctx, tenant.Mount+"/metadata/"+folder)
	var paths []string
	for _, name := range names {
		below, err := r.walk(ctx, folder, name)
		if err != nil {
			return nil, err
		}
		paths = append(paths, below...)
	}
	return paths, err
}

func (r *reader) engine(ctx context.Context) error {
	if len(r.Tenants) > 0 {
		return nil // A part says nothing of the whole.
	}
	answer, err := r.v.Read(ctx, tenant.Mount+"/config", nil)
	if err != nil {
		return err
	}
	if answer == nil {
		return fmt.Errorf("reading %s/config: %w; is KV v2 mounted there?", tenant.Mount, vault.ErrMissing)
	}
	settings, err := vault.Decode[archive.Settings](answer.Data)
	if err != nil {
		return fmt.Errorf("reading %s/config: %w", tenant.Mount, err)
	}
	return r.write(archive.Record{Engine: &archive.Engine{Mount: tenant.Mount, Settings: *settings}})
}

// secrets reads the secrets, some at a time, and writes them in order.
func (r *reader) secrets(ctx context.Context, paths []string) error {
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan chan *archive.Secret, vault.Workers)
	g.Go(func() error {
		defer close(queue)
		// Who waits for a place in the queue waits for the slowest one in it, so
		// that no more than these are in memory.
		for _, path := range paths {
			result := make(chan *archive.Secret, 1)
			select {
			case queue <- result:
			case <-ctx.Done():
				return ctx.Err()
			}
			g.Go(func() error {
				s, err := r.secret(ctx, path)
				result <- s
				return err
			})
		}
		return nil
	})
	g.Go(func() error { return r.writeSecrets(ctx, queue, len(paths)) })
	return g.Wait()
}

func (r *reader) writeSecrets(ctx context.Context, queue <-chan chan *archive.Secret, total int) error {
	done := 0
	for result := range queue {
		s := <-result
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s != nil {
			if err := r.write(archive.Record{Secret: s}); err != nil {
				return err
			}
		}
		if done++; r.Progress != nil {
			r.Progress(done, total)
		}
	}
	return nil
}

// metadata is what KV v2 knows about a secret.
type metadata struct {
	archive.Settings
	Created  string                      `json:"created_time"`
	Current  int                         `json:"current_version"`
	Custom   map[string]string           `json:"custom_metadata"`
	Versions map[string]metadataVersions `json:"versions"`
}

type metadataVersions struct {
	Created   string `json:"created_time"`
	Deleted   string `json:"deletion_time"`
	Destroyed bool   `json:"destroyed"`
}

// numbers are those of the versions, in order.
func (m *metadata) numbers() []int {
	var numbers []int
	for text := range m.Versions {
		if n, err := strconv.Atoi(text); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

func (m *metadata) version(number int) (metadataVersions, bool) {
	v, ok := m.Versions[strconv.Itoa(number)]
	return v, ok
}

func readMetadata(ctx context.Context, v *vault.Client, path string) (*metadata, error) {
	answer, err := v.Read(ctx, tenant.Mount+"/metadata/"+path, nil)
	if err != nil || answer == nil {
		return nil, err
	}
	m, err := vault.Decode[metadata](answer.Data)
	if err != nil {
		return nil, fmt.Errorf("reading %s/metadata/%s: %w", tenant.Mount, path, err)
	}
	return m, nil
}

// secret reads a secret: its metadata, and then each version by its number, which
// nobody can change. nil means that it has gone.
func (r *reader) secret(ctx context.Context, path string) (*archive.Secret, error) {
	for range attempts {
		m, err := readMetadata(ctx, r.v, path)
		if err != nil || m == nil {
			return nil, err
		}
		s, err := r.versions(ctx, path, m)
		if !errors.Is(err, errRemade) {
			return s, err
		}
	}
	return nil, fmt.Errorf("reading %s/%s: somebody deletes it and makes it anew, again and again: %w", tenant.Mount, path, vault.ErrConflict)
}

// errRemade says that a secret is no longer the one that the metadata was of.
var errRemade = errors.New("made anew meanwhile")

func (r *reader) versions(ctx context.Context, path string, m *metadata) (*archive.Secret, error) {
	s := &archive.Secret{Path: path, Settings: m.Settings, Custom: m.Custom, Current: m.Current}
	for _, number := range m.numbers() { // The oldest first: these go when new ones come.
		if r.Latest && number != m.Current {
			continue
		}
		v, err := r.version(ctx, path, number, m)
		if err != nil {
			return nil, err
		}
		if v != nil {
			s.Versions = append(s.Versions, *v)
		}
	}
	return s, nil
}

// version reads a version. One that was deleted or destroyed has no data; nil
// means that newer ones have pushed it out.
func (r *reader) version(ctx context.Context, path string, number int, m *metadata) (*archive.Version, error) {
	was, _ := m.version(number)
	if was.Destroyed {
		return &archive.Version{Number: number, Created: was.Created, Deleted: was.Deleted, Destroyed: true}, nil
	}
	data, created, err := readVersion(ctx, r.v, path, number)
	if err != nil {
		return nil, err
	}
	if data != nil {
		if created != was.Created {
			return nil, errRemade
		}
		return &archive.Version{Number: number, Created: was.Created, Deleted: was.Deleted, Data: data}, nil
	}
	if was.Deleted != "" { // With delete_version_after, this may be a time to come.
		return &archive.Version{Number: number, Created: was.Created, Deleted: was.Deleted}, nil
	}
	return r.gone(ctx, path, number, m)
}

// gone looks again at a version that was there a moment ago.
func (r *reader) gone(ctx context.Context, path string, number int, before *metadata) (*archive.Version, error) {
	m, err := readMetadata(ctx, r.v, path)
	if err != nil {
		return nil, err
	}
	if m == nil || m.Created != before.Created {
		return nil, errRemade
	}
	is, ok := m.version(number)
	if !ok {
		return nil, nil
	}
	was, _ := before.version(number)
	if is.Created != was.Created || !is.Destroyed && is.Deleted == "" {
		return nil, errRemade
	}
	return &archive.Version{Number: number, Created: is.Created, Deleted: is.Deleted, Destroyed: is.Destroyed}, nil
}

// readVersion reads what is in a version, nil if that is nothing, and when it was
// made.
func readVersion(ctx context.Context, v *vault.Client, path string, number int) (archive.Content, string, error) {
	query := url.Values{"version": {strconv.Itoa(number)}}
	answer, err := v.Read(ctx, tenant.Mount+"/data/"+path, query)
	if err != nil || answer == nil {
		return nil, "", err
	}
	about, _ := answer.Data["metadata"].(map[string]any)
	created, _ := about["created_time"].(string)
	data, _ := answer.Data["data"].(map[string]any)
	if deleted, _ := about["deletion_time"].(string); data == nil && (about["destroyed"] == true || deleted != "") {
		return nil, created, nil
	}
	content, err := archive.NewContent(data)
	if err != nil {
		return nil, "", fmt.Errorf("reading version %d of %s/%s: %w", number, tenant.Mount, path, err)
	}
	return content, created, nil
}
