package setup

import (
	"context"
	"strings"

	"github.com/smarteros/deaddrop/agent/tenant"
)

// Demo is the id of the example tenant.
const Demo = "demo"

const fake = "replace-me"

// examples are values that no service takes for real. They have the names that the
// ready-made templates ask for.
func examples() map[string]map[string]any {
	return map[string]map[string]any{
		"nexa":     {"api_key": fake, "webhook_secret": fake},
		"shopify":  {"shop": "demo.myshopify.com", "api_key": fake, "api_secret": fake},
		"smtp":     {"host": "smtp.example.com", "port": "587", "user": "demo@example.com", "password": fake},
		"supabase": {"url": "https://demo.example.com", "anon_key": fake, "service_role_key": fake},
	}
}

// demo are the secrets of the example tenant. What is there already stays, even if
// it was deleted.
func (s *Setup) demo() []task {
	var all []task
	for _, service := range tenant.Services() {
		path := tenant.Path(Demo, service)
		below := strings.TrimPrefix(path, tenant.Mount+"/")
		all = append(all, task{
			name: "example " + path,
			check: func(ctx context.Context) (found, error) {
				data, err := s.read(ctx, tenant.Mount+"/metadata/"+below)
				if err != nil || data == nil {
					return found{Status: Create}, err
				}
				return found{Status: OK}, nil
			},
			apply: func(ctx context.Context) error {
				_, err := s.v.Write(ctx, tenant.Mount+"/data/"+below, map[string]any{
					"data": examples()[service], "options": map[string]any{"cas": 0},
				})
				return err
			},
		})
	}
	return all
}
