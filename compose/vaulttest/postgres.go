package vaulttest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Postgres is a real PostgreSQL on loopback, for one test.
type Postgres struct {
	// Password is that of the superuser, whose name is Admin.
	Password string

	t    testing.TB
	port string
}

// Admin is the name of the superuser.
const Admin = "postgres"

// NewPostgres starts one, from Debian's packages. Where there is none, the test
// is skipped.
func NewPostgres(t testing.TB) *Postgres {
	t.Helper()
	NotShort(t)
	bin := postgresBin(t)
	dir, err := os.MkdirTemp("", "postgres-") // t.TempDir is closed to other users.
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := postgresUser(t, dir)
	_, port, _ := strings.Cut(FreeAddress(t), ":")
	pg := &Postgres{Password: rand.Text(), t: t, port: port}
	password := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(password, []byte(pg.Password), 0o600))
	if as != nil {
		require.NoError(t, os.Chown(password, int(as.Uid), int(as.Gid)))
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", Admin, "--auth=scram-sha-256", "--pwfile="+password, "--no-sync", "--no-locale", "-E", "UTF8")
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	initdb.Dir = dir
	out, err := initdb.CombinedOutput()
	require.NoError(t, err, "%s", out)

	var log bytes.Buffer
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", pg.port, "-k", dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=50")
	server.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	endWithParent(server.SysProcAttr)
	server.Dir, server.Stderr = dir, &log
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT)
		_ = server.Wait()
	})
	for range 600 {
		if _, err := pg.psql(Admin, pg.Password, "SELECT 1"); err == nil {
			return pg
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = server.Process.Kill()
	_ = server.Wait()
	require.FailNow(t, "PostgreSQL does not answer", log.String())
	return nil
}

// postgresBin is the folder of the newest PostgreSQL.
func postgresBin(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return versionOf(b) - versionOf(a) })
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	if _, err := exec.LookPath("psql"); err != nil || len(found) == 0 {
		t.Skip("PostgreSQL is not installed; Debian's package is postgresql")
	}
	return filepath.Dir(found[0])
}

// versionOf reads the number in /usr/lib/postgresql/15/bin/initdb.
func versionOf(path string) int {
	number, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return number
}

// postgresUser gives the folder to a user without rights, since PostgreSQL does
// not run as root. It returns nil for the present user.
func postgresUser(t testing.TB, dir string) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		require.NoError(t, os.Chown(dir, uid, gid))
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
	return nil
}

// Query runs SQL as the superuser and returns what psql prints.
func (pg *Postgres) Query(sql string) string {
	pg.t.Helper()
	out, err := pg.psql(Admin, pg.Password, sql)
	require.NoError(pg.t, err, out)
	return out
}

// CanLogin tells whether the database lets a user in. It must be there to say no.
func (pg *Postgres) CanLogin(user, password string) bool {
	pg.t.Helper()
	out, err := pg.psql(user, password, "SELECT 1")
	if err != nil {
		// The second is of a user that goes while it logs in.
		require.Regexp(pg.t, "authentication failed|does not exist", out)
	}
	return err == nil
}

func (pg *Postgres) psql(user, password, sql string) (string, error) {
	cmd := exec.Command("psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", pg.port, "-U", user, "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", sql)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGPASSWORD=" + password, "PGCONNECT_TIMEOUT=5"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Database mounts the database engine over a PostgreSQL and returns where. It
// has a role "app", whose leases last for ttl and at most for maxTTL.
func (s *Server) Database(t testing.TB, pg *Postgres, ttl, maxTTL time.Duration) string {
	t.Helper()
	mount := s.mount(t, "database")
	s.write(t, mount+"/config/pg", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@127.0.0.1:%s/postgres?sslmode=disable", pg.port),
		"username":       Admin, "password": pg.Password, "password_authentication": "scram-sha-256",
	})
	s.write(t, mount+"/roles/app", map[string]any{
		"db_name": "pg", "default_ttl": ttl.String(), "max_ttl": maxTTL.String(),
		"creation_statements":   []string{`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';`},
		"revocation_statements": []string{`DROP ROLE IF EXISTS "{{name}}";`},
	})
	return mount
}

// StaticRole makes a user in the database whose password Vault changes every
// period, and returns the path of its credentials below the mount.
func (s *Server) StaticRole(t testing.TB, pg *Postgres, mount, user string, period time.Duration) string {
	t.Helper()
	pg.Query(fmt.Sprintf("CREATE ROLE %q WITH LOGIN PASSWORD '%s'", user, rand.Text()))
	s.write(t, mount+"/static-roles/"+user, map[string]any{"db_name": "pg", "username": user, "rotation_period": period.String()})
	return mount + "/static-creds/" + user
}

// PKI mounts an authority and returns where. Its role "web" issues certificates
// for any name.
func (s *Server) PKI(t testing.TB) string {
	t.Helper()
	mount := s.mount(t, "pki")
	s.write(t, mount+"/root/generate/internal", map[string]any{"common_name": "Test Root", "key_type": "ec", "key_bits": 256, "ttl": "24h"})
	s.write(t, mount+"/roles/web", map[string]any{"allow_any_name": true, "enforce_hostnames": false, "key_type": "ec", "key_bits": 256, "max_ttl": "12h"})
	return mount
}

// mount enables an engine at a path of its own.
func (s *Server) mount(t testing.TB, kind string) string {
	t.Helper()
	path := kind + "-" + strings.ToLower(rand.Text()[:8])
	s.write(t, "sys/mounts/"+path, map[string]any{"type": kind})
	return path
}

func (s *Server) write(t testing.TB, path string, data map[string]any) {
	t.Helper()
	_, err := s.Client.Logical().Write(path, data)
	require.NoError(t, err)
}
