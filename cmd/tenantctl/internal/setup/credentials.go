package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/render/safefile"
)

// maxCredential is the size of the largest credential, in bytes.
const maxCredential = 4 << 10

// readCredential returns "" for a file that is not there.
func readCredential(path string) (string, error) {
	text, err := safefile.Read(path, maxCredential)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, safefile.ErrNotRegular), errors.Is(err, safefile.ErrTooLarge):
		return "", fmt.Errorf("%s is there, and is no credential: move it away, or choose another --credentials-dir", path)
	}
	return strings.TrimSpace(string(text)), err
}

// modeOf tells where others may read a file. One that is not there is all right.
func modeOf(path string) ([]Difference, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return nil, err
	}
	return []Difference{{"mode of " + path, fmt.Sprintf("%04o", info.Mode().Perm()), "0600"}}, nil
}

// tighten takes a file from others.
func tighten(path string) error {
	if wide, err := modeOf(path); err != nil || wide == nil {
		return err
	}
	// A link may lead to a file of somebody else.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

func (s *Setup) credential(name string) string {
	return filepath.Join(s.Credentials, Runtime+"."+name)
}

// roleIDFile is the role id, in a file.
func (s *Setup) roleIDFile() task {
	path := s.credential("role_id")
	id := ""
	check := func(ctx context.Context) (found, error) {
		var err error
		if id, err = s.roleID(ctx); err != nil {
			return found{}, err
		}
		has, err := readCredential(path)
		switch {
		case err != nil:
			return found{}, err
		case has == "" || id == "":
			return found{Status: Create}, nil
		case has != id:
			return found{Status: Change, detail: "it holds the id of another role"}, nil
		}
		mode, err := modeOf(path)
		return differing(mode), err
	}
	apply := func(context.Context) error {
		return keys.WriteFile(path, []byte(id+"\n"))
	}
	return task{"role id in " + path, check, apply}
}

// roleID is "" where there is no role.
func (s *Setup) roleID(ctx context.Context) (string, error) {
	data, err := s.read(ctx, rolePath+"/role-id")
	id, _ := data["role_id"].(string)
	return id, err
}

// secretIDFile is a secret id that works, in a file.
func (s *Setup) secretIDFile() task {
	path := s.credential("secret_id")
	check := func(ctx context.Context) (found, error) {
		has, err := readCredential(path)
		if err != nil || has == "" {
			return found{Status: Create}, err
		}
		works, err := s.secretIDWorks(ctx, has)
		if err != nil {
			return found{}, err
		}
		if !works {
			return found{Status: Change, detail: "Vault does not know the one that is there"}, nil
		}
		mode, err := modeOf(path)
		return differing(mode), err
	}
	apply := func(ctx context.Context) error {
		has, err := readCredential(path)
		if err != nil {
			return err
		}
		if has != "" {
			if works, err := s.secretIDWorks(ctx, has); err != nil || works {
				return errors.Join(err, tighten(path))
			}
		}
		return s.newSecretID(ctx, path)
	}
	return task{"secret id in " + path, check, apply}
}

func (s *Setup) secretIDWorks(ctx context.Context, id string) (bool, error) {
	if role, err := s.roleID(ctx); err != nil || role == "" { // To look it up would be a failure then.
		return false, err
	}
	answer, err := s.v.Write(ctx, rolePath+"/secret-id/lookup", map[string]any{"secret_id": id})
	return answer != nil, err
}

// newSecretID leaves no secret id in Vault that nobody has.
func (s *Setup) newSecretID(ctx context.Context, path string) error {
	answer, err := s.v.Write(ctx, rolePath+"/secret-id", map[string]any{"metadata": `{"issued_by":"tenantctl setup"}`})
	if err != nil {
		return err
	}
	id, _ := answer.Data["secret_id"].(string)
	if err := keys.WriteFile(path, []byte(id+"\n")); err != nil {
		_, destroyed := s.v.Write(context.WithoutCancel(ctx), rolePath+"/secret-id-accessor/destroy", map[string]any{"secret_id_accessor": answer.Data["secret_id_accessor"]})
		return errors.Join(err, destroyed)
	}
	return nil
}
