package compose_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const base, openbao, withTLS, dev, raft = "docker-compose.yml", "docker-compose.openbao.yml",
	"docker-compose.tls.yml", "docker-compose.dev.yml", "docker-compose.raft.yml"

// devToken is what docker-compose.dev.yml cannot do without.
const devToken = "VAULT_DEV_ROOT_TOKEN_ID=for-a-test"

// combinations are the sets of files that are meant to be used.
var combinations = map[string][]string{
	"alone":                {base},
	"openbao":              {base, openbao},
	"tls":                  {base, withTLS},
	"dev":                  {base, dev},
	"openbao with tls":     {base, openbao, withTLS},
	"openbao for dev":      {base, openbao, dev},
	"a cluster by itself ": {raft},
}

// project is what Compose v2 makes of files, with variables of the environment.
func project(files []string, env ...string) (*types.Project, error) {
	variables := types.Mapping{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		variables[name] = value
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: dir, ConfigFiles: types.ToConfigFiles(files), Environment: variables,
	}, func(o *loader.Options) { o.SetProjectName("test", true) })
}

// service is the one of a file set.
func service(t *testing.T, files []string, env ...string) types.ServiceConfig {
	t.Helper()
	p, err := project(files, env...)
	require.NoError(t, err)
	require.Contains(t, p.Services, "vault")
	return p.Services["vault"]
}

func TestComposeFilesAreValidForBothComposes(t *testing.T) {
	t.Parallel()
	for name, files := range combinations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := project(files, devToken)
			require.NoError(t, err)
			assert.Equal(t, "smarter-net", p.Networks["smarter-net"].Name)
			for _, s := range p.Services {
				assert.Contains(t, s.ContainerName, "smarteros-vault")
				for _, v := range s.Volumes {
					if v.Type == types.VolumeTypeBind && filepath.Base(v.Source) != "tls" {
						assert.FileExists(t, v.Source)
						assert.True(t, v.ReadOnly, v.Source)
					}
				}
			}

			if _, err := exec.LookPath("docker-compose"); err != nil {
				t.Skip("compose-go takes it; there is no docker-compose 1.29 here to ask, too")
			}
			if testing.Short() {
				t.Skip("compose-go takes it; docker-compose is slow, and -short was asked for")
			}
			out, err := dockerCompose(files, []string{devToken}, "config")
			require.NoError(t, err, "%s", out)
			assert.Contains(t, out, "container_name: smarteros-vault")
			assert.Contains(t, out, "name: smarter-net")
			_, err = dockerCompose(files, []string{devToken, "SMARTER_NET_EXTERNAL=true"}, "config", "-q")
			assert.NoError(t, err)
		})
	}
}

// dockerCompose runs docker-compose 1.29 in this folder with an environment of its own.
func dockerCompose(files, env []string, args ...string) (string, error) {
	all := []string{"--env-file", "testdata/none.env"}
	for _, file := range files {
		all = append(all, "-f", file)
	}
	cmd := exec.Command("docker-compose", append(all, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "DOCKER_HOST=" + os.Getenv("DOCKER_HOST")}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestVaultIsServedAsThePlatformHasIt(t *testing.T) {
	t.Parallel()
	p, err := project([]string{base})
	require.NoError(t, err)
	s := service(t, []string{base})
	assert.Equal(t, "hashicorp/vault:1.21", s.Image)
	assert.Equal(t, "smarteros-vault", s.ContainerName)
	assert.Equal(t, types.ShellCommand{"server"}, s.Command)
	assert.Equal(t, "unless-stopped", s.Restart)
	assert.Equal(t, []string{"IPC_LOCK"}, s.CapAdd)
	assert.Equal(t, []string{"smarter-net"}, slices.Collect(maps.Keys(s.Networks)))
	require.Len(t, s.Ports, 1)
	assert.Equal(t, types.ServicePortConfig{Mode: "ingress", HostIP: "127.0.0.1", Published: "8200", Target: 8200, Protocol: "tcp"}, s.Ports[0])
	volumes := map[string]string{}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeVolume {
			volumes[v.Target] = p.Volumes[v.Source].Name
		}
	}
	assert.Equal(t, map[string]string{
		"/vault/file": "smarteros-vault-data", "/vault/logs": "smarteros-vault-logs", "/vault/config": "smarteros-vault-config",
	}, volumes)
	assert.Equal(t, "Host(`vault.localhost`)", s.Labels["traefik.http.routers.vault.rule"])
	assert.Equal(t, "vault.localhost", s.Labels["caddy"])
	assert.Equal(t, "{{upstreams 8200}}", s.Labels["caddy.reverse_proxy"])
	assert.Equal(t, 10*time.Second, time.Duration(*s.HealthCheck.Interval))
	assert.Nil(t, s.Environment["VAULT_DISABLE_MLOCK"], "it is the configuration's to say")
}

func TestVariablesChangeWhatTheySay(t *testing.T) {
	t.Parallel()
	env := []string{
		"VAULT_IMAGE=registry.example/vault", "VAULT_TAG=1.20.4", "VAULT_CONFIG=./vault/s3.hcl", "VAULT_BIND=0.0.0.0", "VAULT_PORT=18200",
		"VAULT_HOST=vault.example.org", "VAULT_API_ADDR=https://vault.example.org", "VAULT_HEALTH=standbyok=true",
		"VAULT_CONTAINER_NAME=other", "VAULT_DISABLE_MLOCK=true", "SMARTER_NET=other-net", "VAULT_VOLUMES=other", "SMARTER_NET_EXTERNAL=true",
	}
	p, err := project([]string{base}, env...)
	require.NoError(t, err)
	s := p.Services["vault"]
	assert.Equal(t, "registry.example/vault:1.20.4", s.Image)
	assert.Equal(t, "other", s.ContainerName)
	assert.Equal(t, "0.0.0.0", s.Ports[0].HostIP)
	assert.Equal(t, "18200", s.Ports[0].Published)
	assert.Equal(t, "https://vault.example.org", *s.Environment["VAULT_API_ADDR"])
	assert.Equal(t, "true", *s.Environment["VAULT_DISABLE_MLOCK"])
	assert.Equal(t, "other-net", p.Networks["smarter-net"].Name)
	assert.True(t, bool(p.Networks["smarter-net"].External))
	assert.Equal(t, "other-net", s.Labels["traefik.docker.network"])
	assert.Equal(t, "Host(`vault.example.org`)", s.Labels["traefik.http.routers.vault.rule"])
	assert.Equal(t, "vault.example.org", s.Labels["caddy"])
	assert.Equal(t, "http://127.0.0.1:8200/v1/sys/health?standbyok=true", s.HealthCheck.Test[len(s.HealthCheck.Test)-1])
	for _, v := range p.Volumes {
		assert.True(t, strings.HasPrefix(v.Name, "other-"), v.Name)
	}
	assert.Equal(t, "s3.hcl", filepath.Base(mounts(s)["/vault/config/vault.hcl"]))
}

// mounts are the sources of a service's mounts by their targets.
func mounts(s types.ServiceConfig) map[string]string {
	all := map[string]string{}
	for _, v := range s.Volumes {
		all[v.Target] = v.Source
	}
	return all
}

func TestARootTokenIsOnlyKnownInDevelopmentAndNeverADefault(t *testing.T) {
	t.Parallel()
	_, err := project([]string{base, dev})
	assert.ErrorContains(t, err, "choose a root token for development")
	s := service(t, []string{base, dev}, devToken)
	assert.Equal(t, types.ShellCommand{"server", "-dev"}, s.Command)
	assert.Equal(t, "for-a-test", *s.Environment["VAULT_DEV_ROOT_TOKEN_ID"])
	assert.Equal(t, "127.0.0.1", s.Ports[0].HostIP)
	assert.Equal(t, "false", s.Labels["traefik.enable"])
	for name, files := range combinations {
		if slices.Contains(files, dev) {
			continue
		}
		p, err := project(files, devToken)
		require.NoError(t, err, name)
		yaml, err := p.MarshalYAML()
		require.NoError(t, err)
		assert.NotContains(t, string(yaml), "for-a-test", name)
		assert.NotContains(t, string(yaml), "-dev\n", name)
	}
}

func TestWithTLSNothingSpeaksPlainHTTP(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][]string{"vault": {base, withTLS}, "openbao": {base, openbao, withTLS}} {
		s := service(t, files)
		for _, variable := range []string{"VAULT_ADDR", "VAULT_API_ADDR", "BAO_ADDR", "BAO_API_ADDR"} {
			require.NotNil(t, s.Environment[variable], "%s: %s", name, variable)
			assert.True(t, strings.HasPrefix(*s.Environment[variable], "https://"), "%s: %s", name, variable)
		}
		test := s.HealthCheck.Test
		assert.True(t, strings.HasPrefix(test[len(test)-1], "https://"), name)
		assert.Equal(t, "{{upstreams https 8200}}", s.Labels["caddy.reverse_proxy"], name)
		assert.Equal(t, "true", s.Labels["traefik.tcp.routers.vault.tls.passthrough"], name)
		assert.Equal(t, "tls.hcl", filepath.Base(mounts(s)["/vault/config/vault.hcl"]), name)
		assert.Equal(t, 10*time.Second, time.Duration(*s.HealthCheck.Interval), name)
	}
	assert.Equal(t, "openbao-tls.hcl", filepath.Base(mounts(service(t, []string{base, openbao, withTLS}))["/openbao/config/vault.hcl"]))
}
