package dotenv

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	composego "github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/docker/cli/pkg/kvfile"
	"github.com/joho/godotenv"
	"github.com/stretchr/testify/require"
)

// libraryReader reads a .env file in this process.
type libraryReader struct {
	dialects []Dialect
	read     func(content []byte) (map[string]string, error)
}

func (r libraryReader) reads(d Dialect) bool { return d == Portable || slices.Contains(r.dialects, d) }

// expanded is what a reader finds that expands a variable.
func expanded(string) (string, bool) { return "expanded", true }

var inProcess = map[string]libraryReader{
	"compose-go": {[]Dialect{Compose}, func(content []byte) (map[string]string, error) {
		return composego.UnmarshalBytesWithLookup(content, expanded)
	}},
	"godotenv": {[]Dialect{Godotenv}, godotenv.UnmarshalBytes},
	"docker's kvfile": {[]Dialect{Docker, ComposeV1}, func(content []byte) (map[string]string, error) {
		lines, err := kvfile.ParseFromReader(bytes.NewReader(content), expanded)
		return pairsOf(lines), err
	}},
}

// processReader reads a .env file in a process of its own, which is the reader
// that users have.
type processReader struct {
	dialects []Dialect
	longest  int // value that it can be asked for
	read     func(t *testing.T, file string) map[string]string
}

var processes = map[string]processReader{
	"node": {[]Dialect{Node}, longest, func(t *testing.T, file string) map[string]string {
		if err := exec.Command("node", "--env-file=/dev/null", "-e", "0").Run(); err != nil {
			t.Skipf("there is no node that knows --env-file (20.6 and later): %v", err)
		}
		return fromJSON(t, exec.Command("node", "--env-file="+file, "-p", "JSON.stringify(process.env)"))
	}},
	"python-dotenv": {[]Dialect{Python}, longest, byPython},
	"dash":          {[]Dialect{Shell}, longest, func(t *testing.T, file string) map[string]string { return sourced(t, "dash", file) }},
	"bash":          {[]Dialect{Shell}, longest, func(t *testing.T, file string) map[string]string { return sourced(t, "bash", file) }},
	"systemd":       {[]Dialect{Systemd}, 4000, bySystemd},
	"docker run":    {[]Dialect{Docker, ComposeV1}, longest, byDocker},
}

// longest is what values are cut to.
const longest = 1 << 16

// hostile makes a value of what readers disagree about. Some kinds of trouble
// only come in some of the values: together they would leave nothing to carry.
func hostile(rng *rand.Rand) string {
	pieces := []string{
		"a", "B", "1", " ", "  ", "=", "$", "${HOME}", "$HOME", "$$", "$(id)", "`id`", "#", " #", "'", `"`, "''", `""`, "\\", `\\`, `\n`, `\"`, `\$`, `\'`,
		"!", "&", "|", ";", "<", ">", "(", ")", "[", "]", "{", "}", "*", "?", "~", "^", ":", ",", ".", "%", "@", "+", "-", "_", "/", "export ", "A=b",
	}
	for _, rare := range [][]string{
		{"\n", "\n\n", "\nX=y", "\\\n"}, {"\r", "\r\n"}, {"\t", "\v", "\f", "\x01", "\x1b", "\x7f", "\x85"},
		{"é", "漢", "😀", "\u00a0", "\u2028", "\u3000", "\ufeff", "\ufffd"}, {"\x00"}, {"\xff", "\xc3", "\xed\xa0\x80"},
	} {
		if rng.IntN(6) == 0 {
			pieces = append(pieces, rare...)
		}
	}
	kinds := 1 + rng.IntN(len(pieces)) // Few kinds in most values: else quotes of all kinds meet in each.
	if rng.IntN(3) > 0 {
		kinds = 1 + rng.IntN(6)
	}
	rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	length := rng.IntN(12)
	if rng.IntN(2000) == 0 {
		length = longest
	}
	var value strings.Builder
	for range length {
		value.WriteString(pieces[rng.IntN(kinds)])
	}
	return value.String()[:min(value.Len(), longest)]
}

// carried makes pairs whose values the dialect carries, and tells how many it
// has refused on the way.
func carried(t *testing.T, rng *rand.Rand, d Dialect, n, longest int) (pairs map[string]any, refused int) {
	pairs = map[string]any{}
	for len(pairs) < n {
		value := hostile(rng)
		value = value[:min(len(value), longest)]
		if _, ok := quoters[d](value); !ok {
			refused++
			continue
		}
		pairs[fmt.Sprintf("KEY_%d", len(pairs))] = value
	}
	require.Less(t, refused, 25*n, "a dialect that refuses almost all is of no use")
	return pairs, refused
}

func seed(d Dialect) *rand.Rand {
	hash := uint64(0)
	for _, c := range d {
		hash = hash*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(hash, 2))
}

// valuesReadBack is how many values each library reads back in each dialect.
var valuesReadBack = 100_000

func TestLibrariesReadBackThousandsOfValuesOfTheirDialect(t *testing.T) {
	const perFile = 250
	values := valuesReadBack
	if testing.Short() {
		values /= 50
	}
	for name, r := range inProcess {
		for _, d := range append(r.dialects, Portable) {
			t.Run(name+"/"+string(d), func(t *testing.T) {
				t.Parallel()
				rng, refused := seed(d), 0
				for range values / perFile {
					pairs, no := carried(t, rng, d, perFile, longest)
					refused += no
					out, err := Encode(d, pairs)
					require.NoError(t, err)
					got, err := r.read(out)
					require.NoError(t, err)
					same(t, pairs, got)
				}
				t.Logf("%d values came back, %d were refused beforehand", values, refused)
			})
		}
	}
}

func TestProgramsReadBackTwoThousandValuesOfTheirDialect(t *testing.T) {
	values := 2000
	if testing.Short() {
		values = 100
	}
	for name, r := range processes {
		for _, d := range append(r.dialects, Portable) {
			t.Run(name+"/"+string(d), func(t *testing.T) {
				pairs, refused := carried(t, seed(d), d, values, r.longest)
				pairs["LONG"] = strings.Repeat("x", min(r.longest, longestRaw))
				out, err := Encode(d, pairs)
				require.NoError(t, err)
				file := filepath.Join(t.TempDir(), "test.env")
				require.NoError(t, os.WriteFile(file, out, 0o600))
				same(t, pairs, r.read(t, file))
				t.Logf("%d values came back, %d were refused beforehand", len(pairs), refused)
			})
		}
	}
}

// same does not use require.Equal, whose message would be of megabytes.
func same(t *testing.T, want map[string]any, got map[string]string) {
	t.Helper()
	for key, value := range want {
		if back, there := got[key]; !there || back != value {
			t.Fatalf("%s: wrote %.200q, read %.200q", key, value, back)
		}
	}
}

func byPython(t *testing.T, file string) map[string]string {
	const script = "import dotenv, json, sys; print(json.dumps(dotenv.dotenv_values(sys.argv[1])))"
	python := "/usr/bin/python3" // where Debian's python3-dotenv is
	if exec.Command(python, "-c", "import dotenv").Run() != nil {
		python = "python3"
	}
	if exec.Command(python, "-c", "import dotenv").Run() != nil {
		t.Skip("python-dotenv is not installed (Debian: python3-dotenv)")
	}
	return fromJSON(t, exec.Command(python, "-c", script, file))
}

func sourced(t *testing.T, shell, file string) map[string]string {
	out := run(t, exec.Command(shell, "-c", `set -a; . "$1"; env -0`, shell, file))
	return pairsOf(strings.Split(string(out), "\x00"))
}

// bySystemd has systemd-tmpfiles read the values: it needs no systemd that runs,
// and reads os-release by the same parser (parse_env_file_internal in
// src/basic/env-file.c) as systemd reads an EnvironmentFile. What systemd then
// drops of a unit's environment, control characters, is not covered by this.
func bySystemd(t *testing.T, file string) map[string]string {
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	type field struct{ name, letter string }
	fields := []field{{"ID", "o"}, {"BUILD_ID", "B"}, {"VERSION_ID", "w"}, {"VARIANT_ID", "W"}}
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "etc"), 0o700))
	var rules strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&rules, "f+ /%s - - - - %%%s\n", f.name, f.letter)
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "rules.conf"), []byte(rules.String()), 0o600))
	got := map[string]string{}
	for some := range slices.Chunk(assignments(string(content)), len(fields)) {
		var release strings.Builder
		for i, each := range some {
			release.WriteString(fields[i].name + "=" + each[1] + "\n")
		}
		for _, f := range fields[len(some):] {
			release.WriteString(f.name + "=x\n")
		}
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc/os-release"), []byte(release.String()), 0o600))
		run(t, exec.Command("systemd-tmpfiles", "--create", "--root="+root, filepath.Join(root, "rules.conf")))
		for i, each := range some {
			value, err := os.ReadFile(filepath.Join(root, fields[i].name))
			require.NoError(t, err)
			got[each[0]] = string(value)
		}
	}
	return got
}

// assignments splits a file that this package has written for the test: each
// name begins a line and is one of the test's.
func assignments(content string) [][2]string {
	var all [][2]string
	for line := range strings.SplitAfterSeq(content, "\n") {
		if key, value, ok := strings.Cut(line, "="); ok && (strings.HasPrefix(key, "KEY_") || key == "LONG") {
			all = append(all, [2]string{key, value})
		} else if len(all) > 0 {
			all[len(all)-1][1] += line
		}
	}
	for i := range all {
		all[i][1] = strings.TrimSuffix(all[i][1], "\n")
	}
	return all
}

// byDocker runs a container, from an image of this test that holds nothing but
// a program which prints its environment.
func byDocker(t *testing.T, file string) map[string]string {
	if testing.Short() {
		t.Skip("this test needs Docker, and -short was asked for")
	}
	if err := exec.Command("docker", "version").Run(); err != nil {
		t.Skip("there is no Docker engine here")
	}
	dir := t.TempDir()
	source := "package main\nimport (\"os\"; \"strings\")\nfunc main() { os.Stdout.WriteString(strings.Join(os.Environ(), \"\\x00\")) }\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600))
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "printenv"), filepath.Join(dir, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	program, err := os.ReadFile(filepath.Join(dir, "printenv"))
	require.NoError(t, err)
	var image bytes.Buffer
	tw := tar.NewWriter(&image)
	require.NoError(t, tw.WriteHeader(&tar.Header{Name: "printenv", Mode: 0o755, Size: int64(len(program))}))
	_, err = tw.Write(program)
	require.NoError(t, err)
	require.NoError(t, tw.Close())
	name := fmt.Sprintf("deaddrop-test-printenv:%d", rand.Uint32())
	load := exec.Command("docker", "import", "-", name)
	load.Stdin = &image
	out, err = load.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", name).Run() })
	out, err = exec.Command("docker", "run", "--rm", "--network", "none", "--env-file", file, name, "/printenv").Output()
	require.NoError(t, err)
	return pairsOf(strings.Split(string(out), "\x00"))
}

func pairsOf(lines []string) map[string]string {
	got := map[string]string{}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		got[key] = value
	}
	return got
}

func fromJSON(t *testing.T, cmd *exec.Cmd) map[string]string {
	got := map[string]string{}
	require.NoError(t, json.Unmarshal(run(t, cmd), &got))
	return got
}

func run(t *testing.T, cmd *exec.Cmd) []byte {
	if _, err := exec.LookPath(cmd.Args[0]); err != nil {
		t.Skipf("%s is not installed", cmd.Args[0])
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=expanded"}
	out, err := cmd.Output()
	require.NoError(t, err)
	return out
}
