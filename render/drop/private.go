package drop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CheckOwn is [CheckTrusted] for a folder whose path may contain links, and that may not
// exist yet: then the parent counts in which it is to be made. A link can only lead to
// another folder that passes.
func CheckOwn(folder string) error {
	folder = absolute(folder)
	there := Nearest(folder)
	resolved, err := filepath.EvalSymlinks(there)
	if err != nil {
		return err
	}
	return CheckTrustedOrNew(filepath.Join(resolved, strings.TrimPrefix(folder, there)))
}

// InMemory returns an open file that is in no folder, for a program that inherits it.
// Nobody else can replace it or change its content.
func InMemory(content []byte) (*os.File, error) { return memory(content) }

// privateParents are where [PrivateCopy] looks for memory, in this order.
var privateParents = []string{"/dev/shm", "/run", os.TempDir()}

// PrivateCopy writes files into a new folder in memory that only the agent can enter.
// remove removes it.
func PrivateCopy(files map[string][]byte) (folder string, remove func(), err error) {
	var errs []error
	for _, parent := range privateParents {
		folder, remove, err := privateCopyIn(parent, files)
		if err == nil {
			return folder, remove, nil
		}
		errs = append(errs, err)
	}
	return "", nil, fmt.Errorf("no private folder in memory: %w", errors.Join(errs...))
}

func privateCopyIn(parent string, files map[string][]byte) (folder string, remove func(), err error) {
	if onDisk(parent) {
		return "", nil, fmt.Errorf("%s is not in memory", parent)
	}
	if folder, err = os.MkdirTemp(parent, "deaddrop-check-"); err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(folder) }
	err = CheckOwn(folder)
	for name, content := range files {
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), content, 0o600)
		}
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return folder, remove, nil
}
