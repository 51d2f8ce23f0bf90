package setup

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"
)

// audit is a device that writes to a file. One that is there is not taken away, lest
// there be a gap in the log.
func (s *Setup) audit() task {
	var names []string
	check := func(ctx context.Context) (found, error) {
		devices, err := s.v.API().Sys().ListAuditWithContext(ctx)
		if err != nil {
			return found{}, s.v.Explain("reading sys/audit", err)
		}
		names = nil
		for name, device := range devices {
			names = append(names, strings.TrimSuffix(name, "/"))
			if device.Type != "file" || path(device) != s.AuditFile {
				continue
			}
			if device.Options["log_raw"] == "true" {
				return found{Status: Note, detail: fmt.Sprintf("%s has log_raw: the log shows secrets; disable it and run setup again", name)}, nil
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
		return fmt.Errorf("%w; the folder of %s must be there for the server, and writable for it; name another file with --audit-file, or leave it out with --no-audit", err, s.AuditFile)
	}
	return task{"audit to " + s.AuditFile, check, apply}
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
