package reload

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/servicetest"
	"github.com/smarteros/deaddrop/compose/dockertest"
)

func units() map[string]string {
	args := servicetest.Service{File: "/tmp/%N", Start: "start", On: map[string]string{"HUP": "hup"}}.Args()
	service := "[Service]\nExecStart=/service " + args[1] + " '" + args[2] + "'\n"
	return map[string]string{
		"nexa.service":    service + "ExecReload=/bin/kill -HUP $MAINPID\n",
		"plain.service":   service,
		"broken.service":  service + "ExecReload=/bin/false\n",
		"stopped.service": service + "ExecReload=/bin/kill -HUP $MAINPID\n",
		"slow.service":    service + "ExecReload=/bin/sleep 1000\n",
	}
}

// machine starts a systemd with the units, whose program is the test binary.
func machine(t *testing.T) *dockertest.Machine {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	files := map[string]string{}
	for name, text := range units() {
		files["etc/systemd/system/"+name] = text
	}
	// Without polkit a request of another user is refused at once.
	return dockertest.Boot(t, files, []string{"polkit.service"}, "--network", "none", "-v", program+":/service:ro")
}

// This is a real systemd, as process 1 of a container, spoken to over its real
// bus.
func TestUnitsAreReloadedBySystemd(t *testing.T) {
	m := machine(t)
	run := m.Run
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", m.Bus)
	for _, unit := range []string{"nexa", "plain", "broken", "slow"} {
		out, err := run("systemctl", "start", unit)
		require.NoError(t, err, out)
	}
	said := func(unit string) string {
		out, _ := run("cat", "/tmp/"+unit)
		return strings.ReplaceAll(out, "\n", " ")
	}
	says := func(unit, want string) { soon(t, unit+": "+want, func() bool { return said(unit) == want }) }
	says("nexa", "start")
	says("plain", "start")
	now := func() Change { return Change{At: time.Now()} }

	require.NoError(t, Unit{Name: "nexa.service", Action: "reload", Timeout: time.Minute}.Check(t.Context()))
	require.NoError(t, Unit{Name: "nexa.service", Action: "reload", Timeout: time.Minute}.Do(t.Context(), now()))
	says("nexa", "start hup")
	require.NoError(t, Unit{Name: "nexa.service", Action: "reload-or-restart", Timeout: time.Minute}.Do(t.Context(), now()))
	says("nexa", "start hup hup")
	require.NoError(t, Unit{Name: "plain.service", Action: "reload-or-restart", Timeout: time.Minute}.Do(t.Context(), now()))
	says("plain", "start start")
	require.NoError(t, Unit{Name: "nexa.service", Action: "restart", Timeout: time.Minute}.Do(t.Context(), now()))
	says("nexa", "start hup hup start")

	for name, tc := range map[string]struct {
		unit       Unit
		check, err string
	}{
		"a unit that is not there": {Unit{Name: "nex.service"}, `systemd has no unit nex.service; did you mean "nexa.service"?`, `systemd has no unit nex.service; did you mean`},
		"no ExecReload":            {Unit{Name: "plain.service", Action: "reload"}, `unit plain.service cannot be reloaded: give it an ExecReload=, or write action = "reload-or-restart"`, "plain.service"},
		"a reload that fails":      {Unit{Name: "broken.service", Action: "reload"}, "", `systemd says "failed"; "journalctl -u broken.service" tells why`},
		"one that takes too long":  {Unit{Name: "slow.service", Action: "reload", Timeout: 300 * time.Millisecond}, "", "was not done within 300ms"},
	} {
		if tc.unit.Timeout == 0 {
			tc.unit.Timeout = time.Minute
		}
		if tc.check == "" {
			require.NoError(t, tc.unit.Check(t.Context()), name)
		} else {
			require.ErrorContains(t, tc.unit.Check(t.Context()), tc.check, name)
		}
		require.ErrorContains(t, tc.unit.Do(t.Context(), now()), tc.err, name)
	}

	var unneeded *Unneeded
	for _, action := range config.UnitActions() {
		require.ErrorAs(t, Unit{Name: "stopped.service", Action: action, Timeout: time.Minute}.Do(t.Context(), now()), &unneeded)
		assert.Equal(t, "unit stopped.service is inactive; it will see the change when it starts", unneeded.Why)
	}
	out, _ := run("systemctl", "is-active", "stopped")
	assert.Equal(t, "inactive", out)
	require.ErrorAs(t, Unit{Name: "plain.service", Action: "restart", Timeout: time.Minute}.Do(t.Context(), Change{At: time.Now().Add(-time.Hour)}), &unneeded)
	assert.Contains(t, unneeded.Why, "was started after the change")
	says("plain", "start start")

	if syscall.Geteuid() == 0 {
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // The thread that is another user's ends with this goroutine.
			_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534)
			if errno != 0 {
				done <- errno
				return
			}
			done <- Unit{Name: "nexa.service", Action: "reload", Timeout: time.Minute}.Do(t.Context(), now())
		}()
		require.ErrorContains(t, <-done, "is not allowed: run the agent as root, or let its user manage the unit by a polkit rule")
	}
}

func TestABusThatIsNotThereIsNamedWithWhatToMount(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
	require.ErrorContains(t, Unit{Name: "a.service"}.Check(t.Context()), "In a container mount /run/dbus/system_bus_socket")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", "/nowhere")
	require.ErrorContains(t, Unit{Name: "a.service", User: true}.Do(t.Context(), Change{}), "there is no bus of the user's systemd (/nowhere/bus)")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere/bus")
	require.ErrorContains(t, Unit{Name: "a.service", User: true}.Do(t.Context(), Change{}), "the bus of the user's systemd cannot be used")
}
