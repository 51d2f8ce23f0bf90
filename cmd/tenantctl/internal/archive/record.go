package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/render/secret"
)

// Header is the first line of a backup.
type Header struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	// Vault is the version of the Vault that was backed up, Cluster its name.
	Vault   string `json:"vault,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	// Tenants are those that are in it; none means everything.
	Tenants []string `json:"tenants,omitempty"`
	// Latest says that of every secret there is only the newest version.
	Latest bool `json:"latest,omitempty"`
}

// Record is one thing that was backed up: one of the fields is set.
type Record struct {
	Engine *Engine `json:"engine,omitempty"`
	Policy *Policy `json:"policy,omitempty"`
	Secret *Secret `json:"secret,omitempty"`
	Role   *Role   `json:"role,omitempty"`
	Entity *Entity `json:"entity,omitempty"`
}

// Settings are those that KV v2 has for a secret, and for all of them.
type Settings struct {
	MaxVersions int  `json:"max_versions"`
	CASRequired bool `json:"cas_required"`
	// DeleteVersionAfter is a duration such as "1h0m0s"; "0s" is never.
	DeleteVersionAfter string `json:"delete_version_after"`
}

// Engine is the KV v2 engine that the tenants are in.
type Engine struct {
	Mount string `json:"mount"`
	Settings
}

// Policy is an ACL policy.
type Policy struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Secret is a secret of KV v2 with its versions, the oldest first.
type Secret struct {
	// Path is below the mount: tenant/demo/nexa.
	Path string `json:"path"`
	Settings
	Custom map[string]string `json:"custom_metadata,omitempty"`
	// Current is the number of the newest version that there was, 0 for none.
	Current  int       `json:"current"`
	Versions []Version `json:"versions,omitempty"`
}

// Newest returns the newest version, or nil where it is not there.
func (s *Secret) Newest() *Version {
	if n := len(s.Versions); n > 0 && s.Versions[n-1].Number == s.Current {
		return &s.Versions[n-1]
	}
	return nil
}

// Version is a version of a secret. Data is nil where it was deleted or destroyed.
type Version struct {
	Number    int     `json:"number"`
	Created   string  `json:"created"`
	Deleted   string  `json:"deleted,omitempty"`
	Destroyed bool    `json:"destroyed,omitempty"`
	Data      Content `json:"data,omitempty"`
}

// Role is a role of AppRole, without its secret ids.
type Role struct {
	Mount    string                     `json:"mount"`
	Name     string                     `json:"name"`
	RoleID   string                     `json:"role_id"`
	Settings map[string]json.RawMessage `json:"settings"`
}

// Entity is an entity with its aliases.
type Entity struct {
	Name     string            `json:"name"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Policies []string          `json:"policies,omitempty"`
	Disabled bool              `json:"disabled,omitempty"`
	Aliases  []Alias           `json:"aliases,omitempty"`
}

// Alias ties a login to an entity. Mount is the path of the login's mount, since
// each Vault has accessors of its own.
type Alias struct {
	Name   string            `json:"name"`
	Mount  string            `json:"mount"`
	Type   string            `json:"type"`
	Custom map[string]string `json:"custom_metadata,omitempty"`
}

// Content is what is in a secret: a JSON object. It prints as [redacted].
type Content []byte

// Format hides the content from every verb.
func (Content) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, secret.Redacted) }

// MarshalJSON gives the object.
func (c Content) MarshalJSON() ([]byte, error) {
	if c == nil {
		return []byte("null"), nil
	}
	return c, nil
}

// UnmarshalJSON takes an object, or null.
func (c *Content) UnmarshalJSON(text []byte) error {
	switch text = bytes.TrimSpace(text); {
	case bytes.Equal(text, []byte("null")):
		*c = nil
	case !bytes.HasPrefix(text, []byte("{")):
		return errors.New("the content of a secret is not an object") // Without it: it is a secret.
	default:
		*c = append(Content{}, text...)
	}
	return nil
}

// NewContent makes a content that is equal to another one exactly when the
// objects are.
func NewContent(data map[string]any) (Content, error) {
	if data == nil {
		data = map[string]any{}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(data); err != nil {
		return nil, errors.New("a secret has content that is no JSON") // Without it: it is a secret.
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Counts are how many things there are of each kind.
type Counts struct {
	Secrets  int `json:"secrets"`
	Versions int `json:"versions"`
	Policies int `json:"policies"`
	Roles    int `json:"roles"`
	Entities int `json:"entities"`
	Aliases  int `json:"aliases"`
}

// add counts a record. Versions are those that have content.
func (c *Counts) add(r Record) {
	switch {
	case r.Policy != nil:
		c.Policies++
	case r.Role != nil:
		c.Roles++
	case r.Entity != nil:
		c.Entities++
		c.Aliases += len(r.Entity.Aliases)
	case r.Secret != nil:
		c.Secrets++
		for _, v := range r.Secret.Versions {
			if v.Data != nil {
				c.Versions++
			}
		}
	}
}

// check refuses what would lead elsewhere in Vault than it says: whoever made the
// file, what is in it becomes parts of paths.
func (r Record) check() error {
	set := 0
	for _, is := range []bool{r.Engine != nil, r.Policy != nil, r.Secret != nil, r.Role != nil, r.Entity != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("it holds %d things instead of one", set)
	}
	switch {
	case r.Engine != nil:
		return checkPath("mount", r.Engine.Mount)
	case r.Policy != nil:
		return checkName("policy", r.Policy.Name)
	case r.Secret != nil:
		return r.Secret.check()
	case r.Role != nil:
		return errors.Join(checkName("role", r.Role.Name), checkPath("mount", r.Role.Mount))
	}
	return r.Entity.check()
}

func (s *Secret) check() error {
	if err := checkPath("secret", s.Path); err != nil {
		return err
	}
	if !strings.HasPrefix(s.Path, tenant.Folder+"/") {
		return fmt.Errorf("the secret %q is not one of a tenant", s.Path)
	}
	if s.Current < 0 {
		return fmt.Errorf("the secret %q has a version %d", s.Path, s.Current)
	}
	last := 0
	for _, v := range s.Versions {
		if v.Number <= last || v.Number > s.Current {
			return fmt.Errorf("the secret %q has versions out of order", s.Path)
		}
		last = v.Number
	}
	return nil
}

func (e *Entity) check() error {
	if err := checkPath("entity", e.Name); err != nil {
		return err
	}
	for _, a := range e.Aliases {
		if err := checkPath("mount", a.Mount); err != nil {
			return err
		}
	}
	return nil
}

func checkName(kind, name string) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("the %s %q has a slash in its name", kind, name)
	}
	return checkPath(kind, name)
}

// checkPath refuses what a client would clean: "..", "." and empty segments.
func checkPath(kind, path string) error {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fmt.Errorf("the %s %q has a path that leads elsewhere", kind, path)
		}
	}
	return nil
}
