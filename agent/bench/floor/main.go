// Command floor is what deaddrop is measured against: the least that a Go
// program with the same libraries can do for the same result. It reads an HCL
// file, logs in with AppRole, reads one KV v2 secret and writes it as JSON. It
// has no watching, no templates, no checks and no safety.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
)

type config struct {
	Address     string `hcl:"address"`
	RoleIDFile  string `hcl:"role_id_file_path"`
	SecretIDSrc string `hcl:"secret_id_file_path"`
	Secret      string `hcl:"secret"`
	Destination string `hcl:"destination"`
}

func run(file string) error {
	var cfg config
	if err := hclsimple.DecodeFile(file, nil, &cfg); err != nil {
		return err
	}
	vault := api.DefaultConfig()
	vault.Address = cfg.Address
	client, err := api.NewClient(vault)
	if err != nil {
		return err
	}
	roleID, err := os.ReadFile(cfg.RoleIDFile)
	if err != nil {
		return err
	}
	auth, err := approle.NewAppRoleAuth(string(roleID), &approle.SecretID{FromFile: cfg.SecretIDSrc})
	if err != nil {
		return err
	}
	if _, err := client.Auth().Login(context.Background(), auth); err != nil {
		return err
	}
	secret, err := client.Logical().Read(cfg.Secret)
	if err != nil {
		return err
	}
	content, err := json.Marshal(secret.Data["data"])
	if err != nil {
		return err
	}
	return os.WriteFile(cfg.Destination, content, 0o600)
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: floor CONFIG.hcl")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}
