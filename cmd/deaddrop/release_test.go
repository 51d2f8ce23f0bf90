package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// release is what "make release" has made.
type release struct {
	t       *testing.T
	dist    string
	version string
}

// newRelease skips the test unless "make release-check" says where it is.
func newRelease(t *testing.T) *release {
	t.Helper()
	dist := os.Getenv("DEADDROP_TEST_DIST")
	if dist == "" {
		t.Skip("a release takes minutes to make: \"make release-check\" makes one, and tests it")
	}
	text, err := os.ReadFile(filepath.Join(dist, "metadata.json"))
	require.NoError(t, err)
	var about struct{ Version string }
	require.NoError(t, json.Unmarshal(text, &about))
	return &release{t, dist, about.Version}
}

// file is an artifact, by program, system and ending.
func (r *release) file(program, system, ending string) string {
	return filepath.Join(r.dist, program+"_"+r.version+"_"+system+"."+ending)
}

// unpacked is a folder with the files of an archive or a package.
func (r *release) unpacked(program, system, ending string) string {
	r.t.Helper()
	dir, file := r.t.TempDir(), r.file(program, system, ending)
	command := map[string][]string{
		"tar.gz": {"tar", "-xzf", file, "-C", dir, "--strip-components", "1"},
		"deb":    {"dpkg-deb", "-x", file, dir},
		"rpm":    {"sh", "-c", `rpm2cpio "$1" | (cd "$2" && cpio -id --quiet --no-absolute-filenames)`, "sh", file, dir},
	}[ending]
	if ending == "rpm" {
		command[0] = need(r.t, "rpm2cpio", "cpio", command[0])
	} else {
		command[0] = need(r.t, command[0])
	}
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	require.NoError(r.t, err, "%s: %s", file, out)
	return dir
}

// need is the path of the last of some programs, all of which a test needs.
func need(t *testing.T, programs ...string) (path string) {
	t.Helper()
	for _, program := range programs {
		var err error
		if path, err = exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	return path
}

// systems are those that each program is made for.
var systems = []string{"linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64"}

func TestTheReleaseIsCompleteAndItsChecksumsHold(t *testing.T) {
	t.Parallel()
	r := newRelease(t)
	var want []string
	for _, program := range []string{"deaddrop", "tenantctl"} {
		for _, system := range systems {
			endings := []string{"tar.gz", "cdx.json"}
			if strings.HasPrefix(system, "linux") {
				endings = append(endings, "deb", "rpm")
			}
			for _, ending := range endings {
				want = append(want, filepath.Base(r.file(program, system, ending)))
			}
		}
	}
	sums, err := os.ReadFile(filepath.Join(r.dist, "SHA256SUMS"))
	require.NoError(t, err)
	var got []string
	for lines := bufio.NewScanner(bytes.NewReader(sums)); lines.Scan(); {
		sum, name, _ := strings.Cut(lines.Text(), "  ")
		content, err := os.ReadFile(filepath.Join(r.dist, name))
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("%x", sha256.Sum256(content)), sum, name)
		got = append(got, name)
	}
	assert.ElementsMatch(t, want, got)
}

func TestTheReleaseIsWhatMakeBuildMakes(t *testing.T) {
	t.Parallel()
	r, bin := newRelease(t), t.TempDir()
	build := exec.Command("make", "build", "VERSION="+r.version, "BIN="+bin)
	build.Dir = filepath.Join("..", "..")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, program := range []string{"deaddrop", "tenantctl"} {
		dir := r.unpacked(program, runtime.GOOS+"_"+runtime.GOARCH, "tar.gz")
		released, err := os.ReadFile(filepath.Join(dir, program))
		require.NoError(t, err)
		built, err := os.ReadFile(filepath.Join(bin, program))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(built, released), "%s of the release is another one", program)

		says, err := exec.Command(filepath.Join(dir, program), "version").Output()
		require.NoError(t, err)
		assert.Contains(t, string(says), program+" "+r.version+" ")
		for _, file := range []string{"LICENSE", "README.md", "CHANGELOG.md", "completions/" + program + ".bash", "completions/_" + program, "completions/" + program + ".fish"} {
			assert.FileExists(t, filepath.Join(dir, file), program)
		}
	}
}

func TestTheReleaseSaysWhatItIsMadeOf(t *testing.T) {
	t.Parallel()
	r := newRelease(t)
	for _, program := range []string{"deaddrop", "tenantctl"} {
		for _, system := range systems {
			info, err := buildinfo.ReadFile(filepath.Join(r.unpacked(program, system, "tar.gz"), program))
			require.NoError(t, err)
			want := []string{"std " + info.GoVersion}
			for _, module := range info.Deps {
				want = append(want, module.Path+" "+module.Version)
			}
			text, err := os.ReadFile(r.file(program, system, "cdx.json"))
			require.NoError(t, err)
			var sbom struct {
				Components []struct{ Name, Version string }
			}
			require.NoError(t, json.Unmarshal(text, &sbom))
			var got []string
			for _, module := range sbom.Components {
				got = append(got, module.Name+" "+module.Version)
			}
			assert.ElementsMatch(t, want, got, program+" "+system)
		}
	}
}

func TestTheReleaseHasPackagesWithUnitsThatFindTheirProgram(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"deb", "rpm"} {
		t.Run(ending, func(t *testing.T) {
			r := newRelease(t)
			for _, arch := range []string{"amd64", "arm64"} {
				dir := r.unpacked("deaddrop", "linux_"+arch, ending)
				program, err := os.Stat(filepath.Join(dir, "usr/bin/deaddrop"))
				require.NoError(t, err)
				assert.Equal(t, os.FileMode(0o755), program.Mode())
				for _, unit := range []string{"deaddrop@.service", "deaddrop-render@.service"} {
					text, err := os.ReadFile(filepath.Join(dir, "usr/lib/systemd/system", unit))
					require.NoError(t, err)
					assert.Contains(t, string(text), "\nExecStart=/usr/bin/deaddrop ", unit)
				}
				for _, folder := range []string{"etc/deaddrop", "var/lib/deaddrop"} {
					info, err := os.Stat(filepath.Join(dir, folder))
					require.NoError(t, err)
					assert.Equal(t, os.ModeDir|0o755, info.Mode(), folder)
				}
				assert.FileExists(t, filepath.Join(dir, "usr/share/bash-completion/completions/deaddrop"))
				assert.FileExists(t, filepath.Join(dir, "usr/share/doc/deaddrop/copyright"))
				assert.FileExists(t, filepath.Join(r.unpacked("tenantctl", "linux_"+arch, ending), "usr/bin/tenantctl"))
			}
		})
	}
}
