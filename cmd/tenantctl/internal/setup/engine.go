package setup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/compose/policies"
)

// engine is the KV engine of the tenants' secrets.
func (s *Setup) engine() task {
	path := tenant.Mount + "/"
	check := func(ctx context.Context) (found, error) {
		mounts, err := s.v.API().Sys().ListMountsWithContext(ctx)
		if err != nil {
			return found{}, s.v.Explain("reading sys/mounts", err)
		}
		m := mounts[path]
		switch {
		case m == nil:
			return found{Status: Create}, nil
		case m.Type != "kv":
			return found{}, fmt.Errorf("an engine of the type %s is at %s, where secrets of tenants belong: move it away with \"vault secrets move\"", m.Type, path)
		case m.Options["version"] != "2":
			return found{}, fmt.Errorf("KV version 1 is at %s, and tenants need version 2: turn it into one with \"vault kv enable-versioning %s\", which its readers must know of, or move it away", path, path)
		}
		return found{Status: OK}, nil
	}
	apply := func(ctx context.Context) error {
		err := s.v.API().Sys().MountWithContext(ctx, tenant.Mount, &api.MountInput{
			Type: "kv", Description: "secrets of the tenants", Options: map[string]string{"version": "2"},
		})
		if err != nil {
			return s.v.Explain("enabling KV version 2 at "+path, err)
		}
		return s.engineServes(ctx)
	}
	return task{"KV version 2 at " + path, check, apply}
}

// engineServes waits for a new engine, which refuses everything at first.
func (s *Setup) engineServes(ctx context.Context) error {
	pause := session.Backoff(100*time.Millisecond, time.Second)
	for try := 0; ; try++ {
		_, err := s.v.Read(ctx, tenant.Mount+"/config", nil)
		if err == nil || try == 30 || !strings.Contains(err.Error(), "pgrading") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// policies are those of the platform.
func (s *Setup) policies() []task {
	var all []task
	for _, name := range policies.Names() {
		path, want := "sys/policies/acl/"+name, policies.Read(name)
		all = append(all, task{
			name: "policy " + name,
			check: func(ctx context.Context) (found, error) {
				answer, err := s.v.Read(ctx, path, nil)
				if err != nil || answer == nil {
					return found{Status: Create}, err
				}
				text, _ := answer.Data["policy"].(string)
				return differing(lines(text, want)), nil
			},
			apply: func(ctx context.Context) error {
				_, err := s.v.Write(ctx, path, map[string]any{"policy": want})
				return err
			},
		})
	}
	return all
}

// lines compares texts: what only the old one has, and what only the new one has.
func lines(old, new string) (all []Difference) {
	a, b := split(old), split(new)
	// common[i][j] is how many lines a[i:] and b[j:] have in common, in order.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i, x := range slices.Backward(a) {
		for j, y := range slices.Backward(b) {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if x == y {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			all = append(all, Difference{Name: fmt.Sprintf("line %d", i+1), Old: a[i]})
			i++
		default:
			all = append(all, Difference{Name: fmt.Sprintf("line %d", j+1), New: b[j]})
			j++
		}
	}
	return all
}

func split(text string) []string {
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
