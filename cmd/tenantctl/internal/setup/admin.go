package setup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/smarteros/deaddrop/agent/plural"
	"github.com/smarteros/deaddrop/agent/session"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/compose/policies"
)

// Admin is the person who manages tenants.
type Admin struct {
	Name string
	// Password is the one to set, or else Ask gives it; "" from it, and nil, stand for
	// one that is generated.
	Password string
	Ask      func() (string, error)
	// Reset sets a password even if there is one.
	Reset bool
}

// MinPassword is the length of the shortest password, in bytes.
const MinPassword = 12

// CheckPassword tells what is wrong with a password, without quoting it.
func CheckPassword(user, password string) error {
	seen := map[rune]bool{}
	for _, c := range password {
		seen[c] = true
	}
	lower := strings.ToLower(password)
	switch {
	case len(password) < MinPassword:
		return fmt.Errorf("the password has %s; %d are the least", plural.Of(len(password), "character"), MinPassword)
	case len(seen) < 5:
		return fmt.Errorf("the password has only %s", plural.Of(len(seen), "different character"))
	case strings.Contains(lower, "changeme"), strings.Contains(lower, "password"), strings.HasPrefix(lower, strings.ToLower(user)+"123"):
		return fmt.Errorf("the password is one of those that are tried first")
	case strings.ContainsAny(password, "\r\n\x00"):
		return fmt.Errorf("the password has more than one line")
	}
	return nil
}

// passwordFile is where a generated password goes.
func (s *Setup) passwordFile() string {
	if s.Credentials == "" {
		return ""
	}
	return filepath.Join(s.Credentials, s.Admin.Name+".password")
}

// pendingFile has a generated password until Vault has taken it.
func (s *Setup) pendingFile() string { return s.passwordFile() + ".new" }

// leftOver tells of a password of a run that did not learn whether Vault has it.
func (s *Setup) leftOver() string {
	if s.Credentials == "" {
		return ""
	}
	if _, err := os.Lstat(s.pendingFile()); err != nil {
		return ""
	}
	return fmt.Sprintf(`%[1]s is left over from a run that was cut off: if "tenantctl login --user %[2]s --password-file %[1]s" works, move it to %[3]s, or else delete it, or give --reset-admin-password`,
		s.pendingFile(), s.Admin.Name, s.passwordFile())
}

func (s *Setup) userPath() string { return "auth/userpass/users/" + s.Admin.Name }

// admin is a user with a password, and the policy for those who manage tenants. The
// password is only set when the user is new, or when that is asked for.
func (s *Setup) admin() task {
	all := []setting{
		{"token_policies", []string{policies.Admin}},
		{"token_ttl", 8 * time.Hour},
		{"token_max_ttl", 24 * time.Hour},
		{"token_period", time.Duration(0)},
	}
	reset := s.Admin.Reset
	isNew := false
	check := func(ctx context.Context) (found, error) {
		data, err := s.read(ctx, s.userPath())
		if isNew = data == nil; err != nil || isNew {
			return found{Status: Create}, err
		}
		differences := compare(data, all)
		if reset {
			differences = append(differences, Difference{"password", "[redacted]", "[redacted]"})
		}
		mode, err := modeOf(s.passwordFile())
		is := differing(append(differences, mode...))
		if is.detail = s.leftOver(); is.detail != "" && is.Status == OK {
			is.Status = Note
		}
		return is, err
	}
	apply := func(ctx context.Context) error {
		data := body(all)
		if !isNew && !reset {
			if _, err := s.v.Write(ctx, s.userPath(), data); err != nil {
				return err
			}
			return tighten(s.passwordFile())
		}
		err := s.setPassword(ctx, data)
		if err == nil {
			reset = false
		}
		return err
	}
	return task{"user " + s.Admin.Name, check, apply}
}

// setPassword writes the user with a password. A generated one is in its file before
// Vault has it.
func (s *Setup) setPassword(ctx context.Context, data map[string]any) error {
	password := s.Admin.Password
	if password == "" && s.Admin.Ask != nil {
		var err error
		if password, err = s.Admin.Ask(); err != nil {
			return err
		}
	}
	write := func() error {
		data["password"] = password
		_, err := s.v.Write(ctx, s.userPath(), data)
		return err
	}
	if password != "" {
		return write()
	}
	password = rand.Text()
	return s.keepPassword(password, write)
}

// keepPassword writes the file of a password under another name, and gives it its
// name when Vault has taken it.
func (s *Setup) keepPassword(password string, write func() error) error {
	path := s.passwordFile()
	pending := s.pendingFile()
	if err := keys.WriteFile(pending, []byte(password+"\n")); err != nil {
		return err
	}
	switch err := write(); {
	case errors.Is(err, session.ErrUnreachable): // Vault may have it all the same.
		return fmt.Errorf(`%w; whether Vault has the new password is not known: it is in %s; see whether "tenantctl login --user %s --password-file %s" takes it`, err, pending, s.Admin.Name, pending)
	case err != nil:
		_ = os.Remove(pending)
		return err
	}
	if err := os.Rename(pending, path); err != nil {
		return fmt.Errorf("the new password of %s is in %s, and could not be moved: %w", s.Admin.Name, pending, err)
	}
	return nil
}

var userName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

// IsUser tells whether userpass takes this as a user's name, in a path and a file's
// name.
func IsUser(name string) bool { return userName.MatchString(name) }
