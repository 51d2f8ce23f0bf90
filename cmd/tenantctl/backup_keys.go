package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"filippo.io/age"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
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
		return passwordFrom("--passphrase-file", k.passphraseFile, os.Stdin)
	}
	lines, err := askPassphrase(ctx, "Passphrase for the backup: ", "The same again: ")
	switch {
	case err != nil:
		return "", fmt.Errorf("who may read the backup? Give --recipient or --passphrase-file (%w)", err)
	case lines[0] != lines[1]:
		return "", errors.New("the two passphrases differ")
	}
	return lines[0], nil
}

// askPassphrase asks on the terminal, wherever standard input comes from. What is
// typed does not show, not even before the question does.
func askPassphrase(ctx context.Context, prompts ...string) ([]string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask for a passphrase")
	}
	defer tty.Close()
	lines, err := hidden(int(tty.Fd()), patient{ctx, tty}, tty, prompts...)
	if err == nil && slices.Contains(lines, "") {
		err = errors.New("the passphrase is empty")
	}
	return lines, err
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
	passphrase, err := knownPassphrase(ctx, passphraseFile)
	if err != nil {
		return err
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return err
	}
	return asWork(s.Unlock(id))
}

func knownPassphrase(ctx context.Context, file string) (string, error) {
	if file != "" {
		return passwordFrom("--passphrase-file", file, os.Stdin)
	}
	lines, err := askPassphrase(ctx, "Passphrase of the backup: ")
	if err != nil {
		return "", fmt.Errorf("the backup is encrypted with a passphrase: give --passphrase-file (%w)", err)
	}
	return lines[0], nil
}

// errStopped is what an error comes to after a signal, whatever it says.
var errStopped = errors.New("it was stopped")

func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errStopped
	}
	return err
}

// asWork makes an error one of the work, not of the command line.
func asWork(err error) error {
	if err == nil {
		return nil
	}
	return &runError{err}
}
