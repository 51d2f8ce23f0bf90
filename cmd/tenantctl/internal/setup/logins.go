package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/vault"
	"github.com/smarteros/deaddrop/compose/policies"
)

// Runtime is the name of the role of the Nexa runtime.
const Runtime = "nexa-runtime"

const rolePath = "auth/approle/role/" + Runtime

// auth is a login of a type, at the path of the same name.
func (s *Setup) auth(kind string) task {
	check := func(ctx context.Context) (found, error) {
		all, err := s.v.API().Sys().ListAuthWithContext(ctx)
		switch m := all[kind+"/"]; {
		case err != nil:
			return found{}, s.v.Explain("reading sys/auth", err)
		case m == nil:
			return found{Status: Create}, nil
		case m.Type != kind:
			return found{}, fmt.Errorf("a login of the type %s is at auth/%s/: move it away with \"vault auth move\"", m.Type, kind)
		}
		return found{Status: OK}, nil
	}
	apply := func(ctx context.Context) error {
		err := s.v.API().Sys().EnableAuthWithOptionsWithContext(ctx, kind, &api.EnableAuthOptions{Type: kind})
		return s.v.Explain("enabling "+kind, err)
	}
	return task{"login by " + kind, check, apply}
}

// setting is one of a role or a user. Want is a bool, a string, a list of them or a
// [time.Duration].
type setting struct {
	name string
	want any
}

// role is that of the Nexa runtime.
func (s *Setup) role() task {
	return s.settings("role "+Runtime, rolePath, []setting{
		{"token_policies", []string{policies.NexaRuntime}},
		{"token_no_default_policy", true},
		{"token_ttl", time.Hour},
		{"token_max_ttl", 24 * time.Hour},
		{"token_period", time.Duration(0)}, // A period would lift the bound.
		{"token_num_uses", 0},
		{"token_type", "default"},
		{"bind_secret_id", true}, // Without it the role id is enough.
		{"secret_id_ttl", time.Duration(0)},
		{"secret_id_num_uses", 0},
	})
}

// settings are those of something that has them at a path. What it has beyond them,
// such as a binding to addresses, stays.
func (s *Setup) settings(name, path string, all []setting) task {
	return task{
		name: name,
		check: func(ctx context.Context) (found, error) {
			data, err := s.read(ctx, path)
			if err != nil || data == nil {
				return found{Status: Create}, err
			}
			return differing(compare(data, all)), nil
		},
		apply: func(ctx context.Context) error {
			_, err := s.v.Write(ctx, path, body(all))
			return err
		},
	}
}

// read returns nil for what is not there, even if what would be above it is not.
func (s *Setup) read(ctx context.Context, path string) (map[string]any, error) {
	answer, err := s.v.Read(ctx, path, nil)
	if err != nil && !errors.Is(err, vault.ErrMissing) {
		return nil, err
	}
	if err != nil || answer == nil {
		return nil, nil
	}
	return answer.Data, nil
}

func compare(data map[string]any, all []setting) (differences []Difference) {
	for _, each := range all {
		if old, want := show(data[each.name], each.want), show(each.want, each.want); old != want {
			differences = append(differences, Difference{each.name, old, want})
		}
	}
	return differences
}

// body is what is written to have all settings.
func body(all []setting) map[string]any {
	data := map[string]any{}
	for _, each := range all {
		data[each.name] = each.want
		if d, ok := each.want.(time.Duration); ok {
			data[each.name] = int(d / time.Second)
		}
	}
	return data
}

// show is a value as text; like is one of the same kind.
func show(v, like any) string {
	switch v := v.(type) {
	case nil:
		return show(zero(like), like)
	case time.Duration:
		return config.ShortDuration(v)
	case json.Number:
		if seconds, err := v.Int64(); err == nil && isDuration(like) {
			return config.ShortDuration(time.Duration(seconds) * time.Second)
		}
	case []any:
		names := make([]string, len(v))
		for i, each := range v {
			names[i] = fmt.Sprint(each)
		}
		return show(names, like)
	case []string:
		sorted := slices.Sorted(slices.Values(v))
		return "[" + strings.Join(sorted, ", ") + "]"
	}
	return fmt.Sprint(v)
}

func isDuration(v any) bool {
	_, ok := v.(time.Duration)
	return ok
}

// zero is what a setting that is not there amounts to.
func zero(like any) any {
	switch like.(type) {
	case time.Duration:
		return time.Duration(0)
	case bool:
		return false
	case int:
		return 0
	case []string:
		return []string{}
	}
	return ""
}
