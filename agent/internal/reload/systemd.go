package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/smarteros/deaddrop/agent/config"
	"github.com/smarteros/deaddrop/agent/internal/process"
	"github.com/smarteros/deaddrop/render"
)

// Unit reloads or restarts a unit of systemd, over D-Bus. It never starts one
// that is stopped.
type Unit config.Unit

func (u Unit) String() string { return config.Unit(u).String() }

// Do asks systemd and waits until it is done.
func (u Unit) Do(ctx context.Context, change Change) error {
	limit, cancel := limited(ctx, u.Timeout)
	defer cancel()
	err := u.ask(limit, change)
	if timedOut(ctx, limit) && err != nil {
		return fmt.Errorf("%s was not done within %v", u, u.Timeout)
	}
	return err
}

func (u Unit) ask(ctx context.Context, change Change) error {
	bus, err := u.connect(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	is, err := u.state(ctx, bus)
	if err != nil {
		return err
	}
	since, _ := is["ActiveEnterTimestampMonotonic"].(uint64) // microseconds
	switch state, _ := is["ActiveState"].(string); {
	case state == "inactive" || state == "failed":
		return &Unneeded{fmt.Sprintf("unit %s is %s; it will see the change when it starts", u.Name, state)}
	case since > 0 && change.precedes(process.Uptime()-time.Duration(since)*time.Microsecond):
		return &Unneeded{fmt.Sprintf("unit %s was started after the change", u.Name)}
	}
	do := bus.ReloadOrTryRestartUnitContext
	switch u.Action {
	case "reload":
		do = bus.ReloadUnitContext
	case "restart":
		do = bus.TryRestartUnitContext
	}
	done := make(chan string, 1)
	// "fail" leaves alone what someone else is just doing to the unit.
	if _, err := do(ctx, u.Name, "fail", done); err != nil {
		return u.explain(err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%s: systemd says %q; \"%s\" tells why", u, result, u.journal())
		}
	}
	return nil
}

func (u Unit) journal() string {
	if u.User {
		return "journalctl --user -u " + u.Name
	}
	return "journalctl -u " + u.Name
}

// Check tells of a bus that cannot be reached, and of a unit that is not there or
// cannot do what it is to do.
func (u Unit) Check(ctx context.Context) error {
	ctx, cancel := limited(ctx, 10*time.Second)
	defer cancel()
	bus, err := u.connect(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	is, err := u.state(ctx, bus)
	if err != nil {
		return err
	}
	if can, known := is["CanReload"].(bool); known && !can && u.Action == "reload" {
		return fmt.Errorf("unit %s cannot be reloaded: give it an ExecReload=, or write action = \"reload-or-restart\"", u.Name)
	}
	return nil
}

func (u Unit) state(ctx context.Context, bus *systemd.Conn) (map[string]any, error) {
	is, err := bus.GetUnitPropertiesContext(ctx, u.Name)
	if err != nil {
		return nil, u.explain(err)
	}
	switch is["LoadState"] {
	case "not-found":
		hint := ""
		if near := u.nearest(ctx, bus); near != "" {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
		return nil, fmt.Errorf("systemd has no unit %s%s", u.Name, hint)
	case "masked", "error", "bad-setting":
		return nil, fmt.Errorf("unit %s is %q; \"systemctl status %s\" tells more", u.Name, is["LoadState"], u.Name)
	}
	return is, nil
}

func (u Unit) nearest(ctx context.Context, bus *systemd.Conn) string {
	units, err := bus.ListUnitsContext(ctx)
	if err != nil {
		return ""
	}
	var names []string
	for _, each := range units {
		if each.LoadState != "not-found" {
			names = append(names, each.Name)
		}
	}
	return render.Nearest(u.Name, names)
}

func (u Unit) connect(ctx context.Context) (*systemd.Conn, error) {
	if u.User {
		// Without an address the library would start a bus, and find no systemd there.
		socket := filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "bus")
		if _, err := os.Stat(socket); os.Getenv("DBUS_SESSION_BUS_ADDRESS") == "" && err != nil {
			return nil, fmt.Errorf("there is no bus of the user's systemd (%s): run the agent as a user unit, or set DBUS_SESSION_BUS_ADDRESS", socket)
		}
		bus, err := systemd.NewUserConnectionContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("the bus of the user's systemd cannot be used: %w", err)
		}
		return bus, nil
	}
	bus, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("the system's D-Bus cannot be used: %w; is systemd running? In a container mount /run/dbus/system_bus_socket, and give it to root or to the agent's user", err)
	}
	return bus, nil
}

// explain says what to do where systemd refuses.
func (u Unit) explain(err error) error {
	var refused dbus.Error
	if errors.As(err, &refused) {
		name := strings.TrimPrefix(refused.Name, "org.freedesktop.")
		isPolkits := strings.Contains(err.Error(), "polkit.service") // It is asked, and cannot be started.
		switch {
		case isPolkits, slices.Contains([]string{"DBus.Error.AccessDenied", "DBus.Error.InteractiveAuthorizationRequired", "PolicyKit1.Error.NotAuthorized"}, name):
			return fmt.Errorf("%s is not allowed: run the agent as root, or let its user manage the unit by a polkit rule for org.freedesktop.systemd1.manage-units (%w)", u, err)
		case name == "systemd1.TransactionIsDestructive":
			return fmt.Errorf("%s: someone else is just starting or stopping it (%w)", u, err)
		}
	}
	return fmt.Errorf("%s: %w", u, err)
}
