package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/doctor"
	"github.com/smarteros/deaddrop/compose/dockertest"
	"github.com/smarteros/deaddrop/compose/leaktest"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

// nobody and theirs are a user and a group that no drop belongs to by itself.
const nobody, theirs = 65534, 54321

// readAs reads a file as a user who is in one group besides its own.
func readAs(path string, uid uint32, groups ...uint32) (string, error) {
	cat := exec.Command("cat", path)
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	out, err := cat.Output()
	return string(out), err
}

// readable is a folder in memory that every user may enter.
func readable(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to others, and read them as others")
	}
	dir := inMemory(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// anyUmask runs a test with a umask that is not to matter.
func anyUmask(t *testing.T) {
	t.Helper()
	old := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(old) })
}

func TestRender_LetsReadersIntoTheFoldersThatItMakes(t *testing.T) {
	dir := readable(t)
	anyUmask(t)
	f := newFleet(t)
	value := vaulttest.Marker()
	for _, tenant := range []string{"demo", "nobody-1"} {
		f.put(tenant, "nexa", value)
	}
	f.Put("nexa", map[string]any{"KEY": value})
	const group = "  perms = \"0440\"\n  group = \"54321\"\n"
	f.write("deaddrop.hcl", f.Login(f.dir)+
		f.plainDrop("missing", dir+"/missing/parents/nexa.env", group)+
		f.plainDrop("others", dir+"/others/nexa.env", "  perms = \"0444\"\n")+
		f.plainDrop("user", dir+"/user/nexa.env", "  user = \"65534\"\n")+
		f.plainDrop("agent", dir+"/shared/agent.env", "")+
		f.plainDrop("shared", dir+"/shared/nexa.env", group)+
		f.plainDrop("given", dir+"/given/nexa.env", group+"  dir_perms = \"0710\"\n")+
		"set \"set\" {\n  destination = \""+dir+"/set\"\n"+f.plainDrop("in set", "nexa.env", group)+"}\n"+
		"drop \"each\" {\n  for_each = \"secret/"+f.folder+"/*\"\n  secret = \"secret/"+f.folder+"/${each.key}/nexa\"\n  destination = \""+dir+"/each/${each.key}/nexa.env\"\n"+group+"}\n"+
		"template {\n  contents = <<E\n{{ with secret \""+f.Path("nexa")+"\" }}{{ .Data.data.KEY | writeToFile \""+dir+"/side/way/side.txt\" \"\" \"54321\" \"0440\" }}{{ end }}\nE\n  destination = \""+dir+"/side.env\"\n}\n")
	out, code := f.deaddrop("render", "--once", "--config", "deaddrop.hcl")
	require.Zero(t, code, out)

	for _, name := range []string{"missing/parents/nexa.env", "others/nexa.env", "user/nexa.env", "shared/nexa.env", "given/nexa.env", "set/nexa.env", "set/..data/nexa.env", "each/demo/nexa.env", "each/nobody-1/nexa.env", "side/way/side.txt"} {
		content, err := readAs(filepath.Join(dir, name), nobody, theirs)
		require.NoError(t, err, name)
		assert.Contains(t, content, value, name)
	}
	for _, name := range []string{"missing/parents/nexa.env", "user/nexa.env", "shared/nexa.env", "set/nexa.env", "each/demo/nexa.env", "side/way/side.txt"} {
		_, err := readAs(filepath.Join(dir, name), 4321)
		require.Error(t, err, "%s is not for all", name)
	}
	_, err := readAs(filepath.Join(dir, "shared/agent.env"), nobody, theirs)
	require.Error(t, err, "it is the agent's alone")
	for name, want := range map[string]string{
		"missing": "0750 0:54321", "missing/parents": "0750 0:54321", "others": "0755 0:0", "user": "0700 65534:0", "shared": "0750 0:54321",
		"given": "0710 0:54321", "set": "0750 0:54321", "each": "0750 0:54321", "each/demo": "0750 0:54321", "side/way": "0750 0:54321",
	} {
		assert.Equal(t, want, modeAndOwner(t, filepath.Join(dir, name)), name)
	}
	found := f.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, doctor.OK, found.Overall, found.text)
}

// modeAndOwner is as in "0750 0:0".
func modeAndOwner(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%04o %d:%d", info.Mode().Perm(), stat.Uid, stat.Gid)
}

// A token, a socket, a process id and the hidden records come before the first drop.
func TestRun_LetsReadersInWhicheverFileIsFirst(t *testing.T) {
	t.Parallel()
	dir := readable(t)
	f := newFleet(t)
	f.put("demo", "nexa", "v")
	f.Put("nexa", map[string]any{"KEY": "v"})
	f.write("deaddrop.hcl", "pid_file = \""+dir+"/run/pid/agent.pid\"\nauto_auth {\n  method \"approle\" {\n    config = { role_id_file_path = \"role_id\", secret_id_file_path = \"secret_id\" }\n  }\n"+
		"  sink \"file\" {\n    config = { path = \""+dir+"/sink/token\", mode = \"0600\" }\n  }\n}\n"+
		"listener \"unix\" {\n  address = \""+dir+"/socket/s\"\n  role = \"status\"\n}\n"+interval+
		f.plainDrop("sink", dir+"/sink/nexa.env", "  perms = \"0440\"\n  group = \"54321\"\n")+
		f.plainDrop("socket", dir+"/socket/nexa.env", "  perms = \"0440\"\n  group = \"54321\"\n")+
		"drop \"each\" {\n  for_each = \"secret/"+f.folder+"/*\"\n  secret = \"secret/"+f.folder+"/${each.key}/nexa\"\n  destination = \""+dir+"/each/${each.key}/nexa.env\"\n  perms = \"0440\"\n  group = \"54321\"\n  removal_grace = \"1s\"\n"+
		"  reload {\n    command = [\"true\"]\n    on_start = true\n  }\n}\n")
	_ = f.Login(f.dir)
	p := f.start("run", "--config", "deaddrop.hcl")
	for _, name := range []string{"sink/nexa.env", "socket/nexa.env", "each/demo/nexa.env"} {
		f.eventually(name, func() bool {
			content, err := readAs(filepath.Join(dir, name), nobody, theirs)
			return err == nil && strings.Contains(content, "KEY=v")
		})
	}
	f.eventually("the socket is there", func() bool {
		info, err := os.Stat(dir + "/socket/s")
		return err == nil && info.Mode()&fs.ModeSocket != 0
	})
	_, err := readAs(dir+"/sink/token", nobody, theirs)
	require.Error(t, err)
	assert.Equal(t, "0755 0:0", modeAndOwner(t, dir+"/run/pid"))

	f.end("demo", "nexa")
	f.eventually("the tenant's folder goes with its files", func() bool {
		_, err := os.Stat(dir + "/each/demo")
		return os.IsNotExist(err)
	})
	f.put("new", "nexa", "v")
	f.eventually("a tenant that comes later has a folder for its readers, too", func() bool {
		_, err := readAs(dir+"/each/new/nexa.env", nobody, theirs)
		return err == nil
	})
	p.stop()
}

func TestRender_LeavesAFolderOfAnEarlierRunAsItIsAndDoctorSaysHowToMendIt(t *testing.T) {
	t.Parallel()
	dir := readable(t)
	r := newRig(t, vaulttest.Shared(t))
	r.Put("nexa", map[string]any{"KEY": "v"})
	require.NoError(t, os.Mkdir(dir+"/old", 0o700))
	r.write("deaddrop.hcl", r.Login(r.dir)+r.plainDrop("nexa", dir+"/old/nexa.env", "  perms = \"0440\"\n  group = \"54321\"\n"))
	out, code := r.deaddrop("render", "--once", "--config", "deaddrop.hcl")
	require.Zero(t, code, out)
	assert.Equal(t, "0700 0:0", modeAndOwner(t, dir+"/old"))
	_, err := readAs(dir+"/old/nexa.env", nobody, theirs)
	require.Error(t, err)

	found := r.doctor("--config", "deaddrop.hcl")
	assert.Zero(t, found.ExitCode, found.text)
	fix := found.has("folder", doctor.Warning, dir+"/old: members of group 54321 cannot enter it").Fix
	command, _, _ := strings.Cut(fix, "   (")
	require.NoError(t, exec.Command("sh", "-c", command).Run(), command)
	_, err = readAs(dir+"/old/nexa.env", nobody, theirs)
	require.NoError(t, err, "what doctor says mends it")
	found = r.doctor("--config", "deaddrop.hcl")
	assert.Equal(t, doctor.OK, found.Overall, found.text)
}

// letsAnotherUserRead is the recipe of README.md, for folders that are made.
func letsAnotherUserRead(t *testing.T, image string) {
	r := newRig(t, vaulttest.Shared(t))
	marker := vaulttest.Marker()
	r.Put("nexa", map[string]any{"KEY": marker})
	reader := filepath.Join(t.TempDir(), "reader.go")
	require.NoError(t, os.WriteFile(reader, []byte(`package main

import (
	"fmt"
	"os"
)

func main() {
	for _, path := range os.Args[1:] {
		content, err := os.ReadFile(path)
		fmt.Println(path, len(content) > 4, err)
	}
}
`), 0o600))
	service := dockertest.Image(t, dockertest.Build(t, reader))
	const perms = "  perms = \"0440\"\n"
	config := r.plainDrop("flat", "/run/deaddrop/flat.env", perms) + r.plainDrop("missing", "/run/deaddrop/a/b/nexa.env", perms) +
		"set \"set\" {\n  destination = \"/run/deaddrop/set\"\n" + r.plainDrop("in set", "nexa.env", perms) + "}\n" +
		"drop \"each\" {\n  for_each = [\"demo\"]\n  secret = \"" + r.Path("nexa") + "\"\n  destination = \"/run/deaddrop/${each.key}/nexa.env\"\n" + perms + "}\n"
	files := []string{"/run/deaddrop/flat.env", "/run/deaddrop/a/b/nexa.env", "/run/deaddrop/set/nexa.env", "/run/deaddrop/demo/nexa.env"}
	r.write("deaddrop.hcl", config)
	shared := volume(t)
	id := dockertest.Docker(t, append(append([]string{"create"}, r.locked(image, "-v", shared+":/run/deaddrop")...), "render", "--once", "--config", "/run/deaddrop/deaddrop.hcl")...)
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", "-v", id).Run() })
	require.NoError(t, os.Chmod(r.path("deaddrop.hcl"), 0o644))
	dockertest.Docker(t, "cp", r.path("deaddrop.hcl"), id+":/run/deaddrop/deaddrop.hcl")
	dockertest.Docker(t, "start", id)
	assert.Equal(t, "0", dockertest.Docker(t, "wait", id))
	leaktest.Output(t, "docker logs", dockertest.Docker(t, "logs", id), r.SecretID)

	read := func(more ...string) string {
		return dockertest.Docker(t, append(append(append([]string{"run", "--rm", "--user", "1234:1234", "--read-only", "--cap-drop", "ALL", "-v", shared + ":/run/deaddrop:ro"}, more...), service), files...)...)
	}
	assert.Equal(t, strings.Join(files, " true <nil>\n")+" true <nil>", read("--group-add", "65532"))
	assert.NotContains(t, read(), "true", "but not for others")
}
