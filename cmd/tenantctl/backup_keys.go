package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"filippo.io/age"
	"golang.org/x/term"

	"github.com/smarteros/deaddrop/cmd/tenantctl/archive"
)

// backupKeys are the flags that say who can read a backup.
type backupKeys struct {
	recipients     []string
	recipientFiles []string
	passphraseFile string
	plaintext      bool
}

// resolve returns the recipients, none for plain text. It asks for a passphrase
// where nothing else is said.
func (k *backupKeys) resolve(ctx context.Context) ([]age.Recipient, error) {
	var all []age.Recipient
	for _, text := range k.recipients {
		r, err := archive.ParseRecipient(text)
		if err != nil {
			return nil, fmt.Errorf("--recipient: %w", err)
		}
		all = append(all, r)
	}
	for _, path := range k.recipientFiles {
		some, err := archive.ReadRecipients(path)
		if err != nil {
			return nil, fmt.Errorf("--recipients-file: %w", err)
		}
		all = append(all, some...)
	}
	if len(all) > 0 || k.plaintext {
		return all, nil
	}
	passphrase, err := k.passphrase(ctx)
	if err != nil {
		return nil, err
	}
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	return []age.Recipient{r}, nil
}

func (k *backupKeys) passphrase(ctx context.Context) (string, error) {
	if k.passphraseFile != "" {
		return readPassphrase(k.passphraseFile)
	}
	first, err := askPassphrase(ctx, "Passphrase for the backup: ")
	if err != nil {
		return "", fmt.Errorf("who may read the backup? Give --recipient or --passphrase-file (%w)", err)
	}
	again, err := askPassphrase(ctx, "The same again: ")
	if err == nil && first != again {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

// readPassphrase takes the first line of a file.
func readPassphrase(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("--passphrase-file: %w", err)
	}
	passphrase, rest, _ := strings.Cut(string(content), "\n")
	passphrase = strings.TrimSuffix(passphrase, "\r")
	switch {
	case passphrase == "":
		return "", fmt.Errorf("--passphrase-file: the first line of %s is empty", path)
	case strings.TrimSpace(rest) != "":
		return "", fmt.Errorf("--passphrase-file: %s has more than one line", path)
	}
	return passphrase, nil
}

// askPassphrase asks on the terminal, wherever standard input comes from. What is
// typed does not show.
func askPassphrase(ctx context.Context, prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("there is no terminal to ask for a passphrase")
	}
	defer tty.Close()
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(tty, prompt)
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		answers <- answer{text, err}
	}()
	select {
	case <-ctx.Done(): // The reading goroutine ends with the process.
		_ = term.Restore(fd, before)
		fmt.Fprintln(tty)
		return "", ctx.Err()
	case a := <-answers:
		fmt.Fprintln(tty)
		if a.err == nil && len(a.text) == 0 {
			a.err = errors.New("the passphrase is empty")
		}
		return string(a.text), a.err
	}
}

// unlock gives a backup its key: from files of identities, or a passphrase.
func unlock(ctx context.Context, s *archive.Source, identities []string, passphraseFile string) error {
	switch s.Encryption() {
	case archive.Plain:
		return nil
	case archive.Recipients:
		if len(identities) == 0 {
			return errors.New("the backup is encrypted to recipients: give --identity with the file of the secret key")
		}
		var all []age.Identity
		for _, path := range identities {
			some, err := archive.ReadIdentities(path)
			if err != nil {
				return fmt.Errorf("--identity: %w", err)
			}
			all = append(all, some...)
		}
		return asWork(s.Unlock(all...))
	}
	passphrase, err := "", error(nil)
	if passphraseFile != "" {
		passphrase, err = readPassphrase(passphraseFile)
	} else if passphrase, err = askPassphrase(ctx, "Passphrase of the backup: "); err != nil {
		err = fmt.Errorf("the backup is encrypted with a passphrase: give --passphrase-file (%w)", err)
	}
	if err != nil {
		return err
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return err
	}
	return asWork(s.Unlock(id))
}

// asWork makes an error one of the work, not of the command line.
func asWork(err error) error {
	if err == nil {
		return nil
	}
	return &runError{err}
}
