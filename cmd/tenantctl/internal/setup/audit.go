package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/smarteros/deaddrop/agent/session"
)

// audit is a device that writes to a file. One that is there is not taken away, lest
// there be a gap in the log.
func (s *Setup) audit() task {
	var names []string
	check := func(ctx context.Context) (found, error) {
		devices, err := s.devices(ctx)
		if err != nil {
			return found{}, err
		}
		names = nil
		for name, device := range devices {
			names = append(names, strings.TrimSuffix(name, "/"))
			if device.Type != "file" || path(device) != s.AuditFile {
				continue
			}
			return found{Status: OK}, nil
		}
		return found{Status: Create, detail: others(names)}, nil
	}
	apply := func(ctx context.Context) error {
		name := free(names)
		err := s.v.API().Sys().EnableAuditWithOptionsWithContext(ctx, name, &api.EnableAuditOptions{
			Type: "file", Options: map[string]string{"file_path": s.AuditFile},
		})
		switch {
		case err == nil:
			return nil
		case strings.Contains(err.Error(), "via API"):
			return notice(fmt.Sprintf("this server takes audit devices only from its configuration. Write into it, and send it SIGHUP: audit %q %q { options { file_path = %q } }", "file", name, s.AuditFile))
		}
		err = s.v.Explain("enabling the audit device "+name, err)
		if errors.Is(err, session.ErrDenied) {
			return fmt.Errorf(`%w; that takes a root token, which "tenantctl rotate-root" makes; or leave it out with --no-audit`, err)
		}
		return fmt.Errorf("%w; the folder of %s must be there for the server, and writable for it; name another file with --audit-file, or leave it out with --no-audit", err, s.AuditFile)
	}
	return task{"audit to " + s.AuditFile, check, apply}
}

func (s *Setup) devices(ctx context.Context) (map[string]*api.Audit, error) {
	all, err := s.v.API().Sys().ListAuditWithContext(ctx)
	return all, s.v.Explain("reading sys/audit", err)
}

// rawAudit looks for devices that write secrets as they are, whoever has enabled them.
// Whether what they have written may be seen is not for setup to say.
func (s *Setup) rawAudit() task {
	check := func(ctx context.Context) (found, error) {
		devices, err := s.devices(ctx)
		var raw []string
		for name, device := range devices {
			if IsRaw(device) {
				raw = append(raw, strings.TrimSpace(name+" "+path(device)))
			}
		}
		if err != nil || len(raw) == 0 {
			return found{Status: OK}, err
		}
		slices.Sort(raw)
		return found{Status: Wrong, detail: fmt.Sprintf(`%s: log_raw is on, so that secrets are in the log: end that with "vault audit disable", run setup again, and guard the log, or delete it`, strings.Join(raw, ", "))}, nil
	}
	return task{name: "no secrets in the audit log", check: check}
}

// IsRaw tells whether a device writes secrets as they are.
func IsRaw(device *api.Audit) bool {
	raw, _ := strconv.ParseBool(device.Options["log_raw"])
	return raw
}

// path is where a device of the type file writes.
func path(device *api.Audit) string {
	if p := device.Options["file_path"]; p != "" {
		return p
	}
	return device.Options["path"] // its older name
}

func others(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "beside " + strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// free is a name that no device has.
func free(names []string) string {
	name := "file"
	for n := 2; slices.Contains(names, name); n++ {
		name = fmt.Sprintf("file-%d", n)
	}
	return name
}
