// Command demo shows the whole path on one machine, without Docker or root: a
// real Vault, deaddrop, and a service that reloads when its secret changes.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

const config = `vault { address = %q }

auto_auth {
  method "approle" {
    config = { role_id_file_path = "role_id", secret_id_file_path = "secret_id" }
  }
}

template_config { static_secret_render_interval = "2s" }

drop "env" {
  secret      = "secret/tenant/demo/nexa"
  destination = "run/nexa.env"
  dialect     = "godotenv"
  reload {
    signal   = "HUP"
    pid_file = "service.pid"
  }
}

drop "json" {
  secret      = "secret/tenant/demo/nexa"
  destination = "run/nexa.json"
}
`

// patience is how long a step may take before the demo gives up on it.
const patience = 30 * time.Second

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: demo DEADDROP SERVICE (the two binaries)")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(deaddrop, service string) (err error) {
	deaddrop, service = absolute(deaddrop), absolute(service)
	dir, err := os.MkdirTemp("", "deaddrop-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	step("Starting a real Vault")
	vault, err := vaulttest.Start("-listen", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer vault.Stop()
	say("Vault at %s, in memory", vault.Address)

	step("Setting it up: a policy, an AppRole without the default policy, a tenant's secret")
	if err := setUp(vault, dir); err != nil {
		return err
	}

	step("Starting deaddrop")
	agent, err := start(dir, "deaddrop", deaddrop, "run", "--config", "deaddrop.hcl", "--log-format", "text")
	if err != nil {
		return err
	}
	defer agent.stop()
	if err := waitFor(func() bool { return exists(dir, "run/nexa.env") && exists(dir, "run/nexa.json") }); err != nil {
		return fmt.Errorf("waiting for the files: %w", err)
	}
	show(dir, "run/nexa.env", "run/nexa.json")

	step("Starting the service")
	nexa, err := start(dir, "service", service, "run/nexa.env", "service.pid")
	if err != nil {
		return err
	}
	defer nexa.stop()
	if err := waitFor(func() bool { return nexa.said("service started") && exists(dir, "service.pid") }); err != nil {
		return fmt.Errorf("waiting for the service: %w", err)
	}

	step("Rotating the secret")
	if err := put(vault, "sk-demo-after-2222", "nexa-large"); err != nil {
		return err
	}
	rotated := time.Now()
	if err := waitFor(func() bool { return nexa.said("service reloaded: MODEL=nexa-large") }); err != nil {
		return fmt.Errorf("waiting for the reload: %w", err)
	}
	took := time.Since(rotated)
	show(dir, "run/nexa.env", "run/nexa.json")
	say("%s", colour("32;1", fmt.Sprintf("The service runs on the new secret %.1f s after it changed (it is looked at every 2 s here).", took.Seconds())))

	step("Stopping everything")
	return nil
}

func setUp(vault *vaulttest.Server, dir string) error {
	policy, err := os.ReadFile("compose/policies/nexa-runtime-policy.hcl")
	if err != nil {
		return err
	}
	roleID, secretID, err := vault.AppRole("nexa-runtime", string(policy))
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"role_id":      roleID,
		"secret_id":    secretID,
		"deaddrop.hcl": fmt.Sprintf(config, vault.Address),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return put(vault, "sk-demo-before-1111", "nexa-small")
}

func put(vault *vaulttest.Server, key, model string) error {
	_, err := vault.Client.Logical().Write("secret/data/tenant/demo/nexa", map[string]any{"data": map[string]any{
		"API_KEY": key, "MODEL": model, "GREETING": "it costs $5 & more",
	}})
	say("secret/tenant/demo/nexa: API_KEY=%s MODEL=%s", key, model)
	return err
}

// process is a program whose output is shown line by line.
type process struct {
	cmd   *exec.Cmd
	lines chan string
	seen  []string
	ended chan struct{}
}

func start(dir, name, program string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...), lines: make(chan string, 1000), ended: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "STATE_DIRECTORY=" + filepath.Join(dir, "state")}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			fmt.Printf("    %s %s\n", colour("36", name+" |"), scan.Text())
			p.lines <- scan.Text()
		}
	}()
	return p, nil
}

func (p *process) said(what string) bool {
	for {
		select {
		case line := <-p.lines:
			p.seen = append(p.seen, line)
		default:
			return strings.Contains(strings.Join(p.seen, "\n"), what)
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	<-p.ended
	_ = p.cmd.Wait()
}

func waitFor(done func() bool) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if done() {
			return nil
		}
	}
	return errors.New("it took too long")
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func show(dir string, names ...string) {
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			content = []byte(err.Error())
		}
		say("%s", colour("33", name))
		for line := range strings.SplitSeq(strings.TrimSuffix(string(content), "\n"), "\n") {
			say("  %s", line)
		}
	}
}

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}

func step(text string) { fmt.Println(colour("1", "\n==> "+text)) }

func say(format string, args ...any) { fmt.Printf("    "+format+"\n", args...) }

func colour(code, text string) string {
	if !term.IsTerminal(int(os.Stdout.Fd())) || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
