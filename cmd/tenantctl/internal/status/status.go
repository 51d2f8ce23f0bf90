// Package status looks at a Vault, as far as the token that is at hand may.
package status

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/setup"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
)

// Report is what there is to see. What could not be seen is nil, and Unseen says why.
type Report struct {
	Address     string     `json:"address"`
	Version     string     `json:"version"`
	Cluster     string     `json:"cluster,omitempty"`
	Initialized bool       `json:"initialized"`
	Seal        Seal       `json:"seal"`
	Storage     string     `json:"storage,omitempty"`
	HA          *HA        `json:"ha"`
	Mounts      []Mount    `json:"mounts"`
	Logins      []Mount    `json:"auth_methods"`
	Audit       []Audit    `json:"audit_devices"`
	Token       *Token     `json:"token"`
	Tenants     *int       `json:"tenants"`
	Unseen      []Obstacle `json:"unseen,omitempty"`
}

// Seal is how Vault is closed.
type Seal struct {
	Sealed    bool   `json:"sealed"`
	Type      string `json:"type"`
	Threshold int    `json:"threshold"`
	Shares    int    `json:"shares"`
	// Progress is how many keys were given since it was sealed.
	Progress int `json:"progress"`
}

// HA says who leads.
type HA struct {
	Enabled bool   `json:"enabled"`
	Mode    string `json:"mode,omitempty"` // active or standby
	Leader  string `json:"leader,omitempty"`
}

// Mount is an engine or a login.
type Mount struct {
	Path    string `json:"path"`
	Type    string `json:"type"`
	Version string `json:"version,omitempty"` // of KV
}

// Audit is an audit device.
type Audit struct {
	Path string `json:"path"`
	Type string `json:"type"`
	File string `json:"file,omitempty"`
	// Raw says that it writes secrets as they are.
	Raw bool `json:"raw,omitempty"`
}

// Token is the one that was used.
type Token struct {
	Name     string     `json:"name"`
	Policies []string   `json:"policies"`
	Expires  *time.Time `json:"expires,omitempty"` // nil for never
	TTL      string     `json:"ttl,omitempty"`
}

// Obstacle is why something could not be seen.
type Obstacle struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// InvalidToken is why a token shows nothing that Vault does not know, or not any more.
const InvalidToken = "the token is invalid"

// The names of what takes a token to be seen.
const (
	Mounts  = "mounts"
	Logins  = "auth_methods"
	Devices = "audit_devices"
	Own     = "token"
	Tenants = "tenants"
)

// Look asks Vault. It fails only where Vault does not answer at all.
func Look(ctx context.Context, v *vault.Client) (*Report, error) {
	r := &Report{Address: v.Address()}
	s, err := v.API().Sys().SealStatusWithContext(ctx)
	if err != nil {
		return nil, v.Explain("asking Vault for its state", err)
	}
	r.Version, r.Cluster, r.Initialized, r.Storage = s.Version, s.ClusterName, s.Initialized, s.StorageType
	r.Seal = Seal{s.Sealed, s.Type, s.T, s.N, s.Progress}
	if s.Sealed {
		return r, nil
	}
	r.leader(ctx, v)
	for _, part := range []struct {
		name string
		look func(context.Context, *vault.Client) error
	}{
		{Mounts, r.mounts}, {Logins, r.logins}, {Devices, r.audit}, {Own, r.token}, {Tenants, r.tenants},
	} {
		if v.API().Token() == "" {
			r.Unseen = append(r.Unseen, Obstacle{part.name, "no token"})
		} else if err := part.look(ctx, v); err != nil {
			r.Unseen = append(r.Unseen, Obstacle{part.name, why(ctx, v, err)})
		}
	}
	return r, nil
}

// why is short for what is usual.
func why(ctx context.Context, v *vault.Client, err error) string {
	switch {
	case v.RefusesToken(ctx, err):
		return InvalidToken
	case errors.Is(err, session.ErrDenied):
		return "not allowed"
	}
	return err.Error()
}

func (r *Report) leader(ctx context.Context, v *vault.Client) {
	l, err := v.API().Sys().LeaderWithContext(ctx)
	if err != nil {
		r.Unseen = append(r.Unseen, Obstacle{"ha", why(ctx, v, v.Explain("asking who leads", err))})
		return
	}
	r.HA = &HA{Enabled: l.HAEnabled, Leader: l.LeaderAddress}
	if l.HAEnabled && l.IsSelf {
		r.HA.Mode = "active"
	} else if l.HAEnabled {
		r.HA.Mode = "standby"
	}
}

func (r *Report) mounts(ctx context.Context, v *vault.Client) error {
	all, err := v.API().Sys().ListMountsWithContext(ctx)
	r.Mounts = sorted(all)
	return v.Explain("reading sys/mounts", err)
}

func (r *Report) logins(ctx context.Context, v *vault.Client) error {
	all, err := v.API().Sys().ListAuthWithContext(ctx)
	r.Logins = sorted(all)
	return v.Explain("reading sys/auth", err)
}

func sorted(all map[string]*api.MountOutput) []Mount {
	var mounts []Mount
	for path, m := range all {
		mount := Mount{Path: path, Type: m.Type}
		if m.Type == "kv" {
			mount.Version = cmp.Or(m.Options["version"], "1")
		}
		mounts = append(mounts, mount)
	}
	slices.SortFunc(mounts, func(a, b Mount) int { return strings.Compare(a.Path, b.Path) })
	return mounts
}

func (r *Report) audit(ctx context.Context, v *vault.Client) error {
	all, err := v.API().Sys().ListAuditWithContext(ctx)
	if err != nil {
		return v.Explain("reading sys/audit", err)
	}
	r.Audit = []Audit{} // None is an answer, too.
	for path, device := range all {
		r.Audit = append(r.Audit, Audit{path, device.Type, cmp.Or(device.Options["file_path"], device.Options["path"]), setup.IsRaw(device)})
	}
	slices.SortFunc(r.Audit, func(a, b Audit) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

func (r *Report) token(ctx context.Context, v *vault.Client) error {
	answer, err := v.Read(ctx, "auth/token/lookup-self", nil)
	if err != nil {
		return err
	}
	if answer == nil {
		return errors.New("there is no answer about it")
	}
	t := &Token{}
	t.Name, _ = answer.Data["display_name"].(string)
	t.Policies, _ = answer.TokenPolicies()
	if ttl, _ := answer.TokenTTL(); ttl > 0 {
		end := time.Now().Add(ttl).UTC().Truncate(time.Second)
		t.Expires, t.TTL = &end, ttl.String()
	}
	r.Token = t
	return nil
}

func (r *Report) tenants(ctx context.Context, v *vault.Client) error {
	names, err := v.List(ctx, tenant.Mount+"/metadata/"+tenant.Folder+"/")
	if err != nil {
		return err
	}
	n := 0
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			n++
		}
	}
	r.Tenants = &n
	return nil
}
