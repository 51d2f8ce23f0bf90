// Command bench measures deaddrop on a devvault, beside the floor program: time
// and peak memory of a single run, memory and CPU of a resident agent.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/smarteros/deaddrop/agent/tenant"
	"github.com/smarteros/deaddrop/compose/vaulttest"
)

const (
	many     = 1000
	settle   = 12 * time.Second // for the first sweep to be over
	observed = 20 * time.Second // two sweeps
)

func main() {
	disk := flag.String("disk", "", "`folder` on a disk; default: the first of $TMPDIR, the home and the working directory that is on one")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [-disk FOLDER] DEADDROP FLOOR (the two binaries)")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *disk); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(deaddrop, floor, disk string) (err error) {
	parent := "" // of the temporary folder
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		parent = "/dev/shm" // files go to tmpfs, as in use
	}
	dir, err := os.MkdirTemp(parent, "deaddrop-bench-"+rand.Text()[:4])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	vault, err := vaulttest.Start("-listen", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer vault.Stop()
	onDisk, err := diskFolder(disk)
	if err != nil {
		return err
	}
	if onDisk != "" {
		defer func() { err = errors.Join(err, os.RemoveAll(onDisk)) }()
	}
	if err := setUp(vault, dir, onDisk); err != nil {
		return err
	}
	for _, binary := range []string{floor, deaddrop} {
		info, err := os.Stat(binary)
		if err != nil {
			return err
		}
		fmt.Printf("%-38s %8.1f MB\n", "binary "+filepath.Base(binary), float64(info.Size())/1e6)
	}
	for _, c := range []struct {
		what string
		runs int
		args []string
	}{
		{"floor: once, 1 secret", 25, []string{floor, dir + "/floor.hcl"}},
		{"deaddrop: once, 1 secret", 25, []string{deaddrop, "render", "--config", dir + "/1.hcl"}},
		{"deaddrop: once, 1,000 secrets", 5, []string{deaddrop, "render", "--config", dir + "/1000.hcl"}},
		{"deaddrop: once, 1,000 tenants with 4", 3, []string{deaddrop, "render", "--config", dir + "/tenants.hcl"}},
	} {
		if err := once(c.what, dir, c.runs, c.args); err != nil {
			return err
		}
	}
	if onDisk == "" {
		fmt.Println("files on disk: skipped, no folder here is on a disk; name one with -disk")
	} else {
		if err := filesOnDisk(onDisk); err != nil {
			return err
		}
		args := []string{deaddrop, "render", "--config", dir + "/disk.hcl"}
		if err := once("deaddrop: once, 1,000 secrets on disk", onDisk, 5, args); err != nil {
			return err
		}
	}
	for _, c := range []struct{ what, config string }{
		{"deaddrop: resident, 1 secret", "1.hcl"}, {"deaddrop: resident, 1,000 secrets", "1000.hcl"},
		{"deaddrop: resident, 1,000 tenants with 4", "tenants.hcl"},
	} {
		if err := resident(c.what, deaddrop, filepath.Join(dir, c.config)); err != nil {
			return err
		}
	}
	return nil
}

// setUp writes the secrets, a role without the default policy, and the
// configurations of deaddrop and of the floor.
func setUp(vault *vaulttest.Server, dir, onDisk string) error {
	roleID, secretID, err := vault.AppRole("bench", `path "secret/data/tenant/+/*" { capabilities = ["read"] }
path "secret/metadata/tenant/" { capabilities = ["list"] }`)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(8)
	for i := range many {
		for _, service := range tenant.Services() {
			group.Go(func() error {
				_, err := vault.Client.Logical().Write(fmt.Sprintf("secret/data/tenant/t%d/%s", i, service), map[string]any{"data": map[string]any{
					"API_KEY": rand.Text(), "URL": "https://nexa.example/" + strconv.Itoa(i), "MODEL": "large", "TEMPERATURE": "0.7"}})
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	login := fmt.Sprintf("vault { address = %q }\nauto_auth {\n  method \"approle\" {\n    config = { role_id_file_path = \"%s/role_id\", secret_id_file_path = \"%s/secret_id\" }\n  }\n}\ntemplate_config { static_secret_render_interval = \"10s\" }\n", vault.Address, dir, dir)
	drops := func(n int, dir string) string {
		var all strings.Builder
		for i := range n {
			fmt.Fprintf(&all, "drop \"t%d\" {\n  secret      = \"secret/tenant/t%d/nexa\"\n  destination = \"%s/out-%d/%d.env\"\n}\n", i, i, dir, n, i)
		}
		return all.String()
	}
	var each strings.Builder
	for _, service := range tenant.Services() {
		fmt.Fprintf(&each, "drop %[1]q {\n  for_each    = \"secret/tenant/*\"\n  secret      = \"secret/tenant/${each.key}/%[1]s\"\n  destination = \"%[2]s/out-tenants/${each.key}/%[1]s.env\"\n}\n", service, dir)
	}
	for name, content := range map[string]string{
		"tenants.hcl": login + each.String(),
		"role_id":     roleID, "secret_id": secretID,
		"1.hcl": login + drops(1, dir), "1000.hcl": login + drops(many, dir), "disk.hcl": login + drops(many, onDisk),
		"floor.hcl": fmt.Sprintf("address = %q\nrole_id_file_path = \"%s/role_id\"\nsecret_id_file_path = \"%s/secret_id\"\nsecret = \"secret/data/tenant/t0/nexa\"\ndestination = \"%s/floor.json\"\n", vault.Address, dir, dir, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// once prints the medians of several runs, each from nothing. Peak memory is
// taken in runs of their own: looking at /proc costs the run time.
func once(what, dir string, runs int, args []string) error {
	var walls []time.Duration
	var peaks []int
	for i := range 2 * runs {
		for _, out := range []string{"out-1", "out-1000", "out-tenants"} {
			if err := os.RemoveAll(filepath.Join(dir, out)); err != nil {
				return err
			}
		}
		cmd := exec.Command(args[0], args[1:]...)
		start := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		peak := make(chan int, 1)
		ctx, cancel := context.WithCancel(context.Background())
		if i >= runs {
			go func() { peak <- watchPeak(ctx, cmd.Process.Pid) }()
		}
		err := cmd.Wait()
		wall := time.Since(start)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if i < runs {
			walls = append(walls, wall)
		} else {
			peaks = append(peaks, <-peak)
		}
	}
	slices.Sort(walls)
	slices.Sort(peaks)
	fmt.Printf("%-38s %8.1f ms  %6.1f MB peak\n", what, float64(walls[runs/2].Microseconds())/1e3, float64(peaks[runs/2])/1e3)
	return nil
}

// watchPeak polls a process's high-water mark, in kB: what wait4 tells is at
// least what its parent had.
func watchPeak(ctx context.Context, pid int) int {
	peak := 0
	for ctx.Err() == nil {
		peak = max(peak, memory(pid, "VmHWM:"))
		time.Sleep(200 * time.Microsecond)
	}
	return peak
}

func memory(pid int, field string) int {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(content), field)
	for word := range strings.FieldsSeq(rest) {
		kB, _ := strconv.Atoi(word)
		return kB
	}
	return 0
}

func resident(what, deaddrop, config string) error {
	cmd := exec.Command(deaddrop, "run", "--config", config)
	if err := cmd.Start(); err != nil {
		return err
	}
	time.Sleep(settle)
	before := cpu(cmd.Process.Pid)
	time.Sleep(observed)
	used := cpu(cmd.Process.Pid) - before
	rss := memory(cmd.Process.Pid, "VmRSS:")
	fmt.Printf("%-38s %8.1f %%   %6.1f MB\n", what, 100*used.Seconds()/observed.Seconds(), float64(rss)/1e3)
	return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
}

// cpu is the time that a process has spent on processors.
func cpu(pid int) time.Duration {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // ticks of USER_HZ, 100 a second
}
