package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/input"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/keys"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/setup"
	"github.com/smarteros/deaddrop/render/printable"
)

// keyFlags say where the unseal keys are.
type keyFlags struct {
	file       string
	identities []string
}

func (k *keyFlags) add(f *pflag.FlagSet, what string) {
	f.StringVar(&k.file, "keys-file", "", "`file` of the unseal keys: "+what)
	f.StringArrayVar(&k.identities, "age-identity", nil, "`file` with the secret key of age or SSH that decrypts the keys file; may be given several times")
}

// check finds what is wrong on the command line.
func (k *keyFlags) check() error {
	if len(k.identities) > 0 && k.file == "" {
		return errors.New("--age-identity is for a --keys-file")
	}
	if k.file == "-" && onTerminal(os.Stdin) {
		return errors.New("--keys-file -: standard input is the terminal, where keys would show: pipe them in")
	}
	return nil
}

func (k *keyFlags) open(stdin io.Reader) (*keys.File, error) {
	if k.file == "-" {
		return keys.Read(stdin)
	}
	for _, path := range append([]string{k.file}, k.identities...) {
		warnIfOpen(path)
	}
	return keys.Open(k.file, k.identities)
}

// warnIfOpen says that a file with a secret is one for everybody.
func warnIfOpen(path string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		_, _ = fmt.Fprintf(os.Stderr, "%s can be read by all users of this machine: chmod 600 it\n", printable.Text(path))
	}
}

// maxPassword is the size of the largest file with a password, in bytes.
const maxPassword = 64 << 10

// passwordFrom takes the first line of a file, or of standard input for "-".
func passwordFrom(flag, path string, stdin io.Reader) (string, error) {
	from := "standard input"
	var text []byte
	var err error
	if path != "-" {
		from = path
		warnIfOpen(path)
		text, err = input.Read(path, maxPassword)
	} else {
		text, err = io.ReadAll(io.LimitReader(stdin, maxPassword))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	password, rest, _ := strings.Cut(string(text), "\n")
	switch {
	case strings.TrimSuffix(password, "\r") == "":
		return "", fmt.Errorf("%s: the first line of %s is empty", flag, from)
	case strings.TrimSpace(rest) != "":
		return "", fmt.Errorf("%s: %s has more than one line", flag, from)
	}
	return strings.TrimSuffix(password, "\r"), nil
}

// checkUser takes names that are one segment of a path, as Vault does.
func checkUser(flag, name string) error {
	if !setup.IsUser(name) {
		return fmt.Errorf("%s %q: a user's name has letters, digits, -, _, and dots within", flag, name)
	}
	return nil
}
