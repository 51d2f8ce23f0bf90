package archive

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/input"
)

// maxKeys is the size of the largest file of keys, in bytes.
const maxKeys = 1 << 20

// ParseRecipient takes a public key: age1…, ssh-ed25519 or ssh-rsa.
func ParseRecipient(text string) (age.Recipient, error) {
	var r age.Recipient
	var err error
	switch text = strings.TrimSpace(text); {
	case strings.HasPrefix(text, "AGE-SECRET-KEY-"), strings.HasPrefix(text, "AGE-PLUGIN-"):
		return nil, errors.New("this is a secret key: give the public one, which begins with age1") // Without it.
	case strings.HasPrefix(text, "age1pq1"):
		r, err = age.ParseHybridRecipient(text)
	case strings.HasPrefix(text, "age1"):
		r, err = age.ParseX25519Recipient(text)
	case strings.HasPrefix(text, "ssh-"):
		r, err = agessh.ParseRecipient(text)
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		return nil, errors.New("this is not a recipient: write a public key, age1…, ssh-ed25519 … or ssh-rsa …")
	}
	return r, nil
}

// ReadRecipients takes the public keys of a file, one a line.
func ReadRecipients(path string) ([]age.Recipient, error) {
	all, _, err := ReadRecipientLines(path)
	return all, err
}

// ReadRecipientLines is [ReadRecipients], and returns the keys as text, too.
func ReadRecipientLines(path string) (all []age.Recipient, lines []string, err error) {
	text, err := input.Read(path, maxKeys)
	if err != nil {
		return nil, nil, err
	}
	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := ParseRecipient(line)
		if err != nil {
			return nil, nil, fmt.Errorf("%s, line %d: %w", path, i+1, err)
		}
		all, lines = append(all, r), append(lines, line)
	}
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("%s: there is no recipient in it", path)
	}
	return all, lines, nil
}

// ReadIdentities takes the secret keys of a file: of age, or one of SSH.
func ReadIdentities(path string) ([]age.Identity, error) {
	text, err := input.Read(path, maxKeys)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte("-----BEGIN")) {
		id, err := agessh.ParseIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("%s: this is no SSH key that can be used: it must be of the type ed25519 or rsa, and have no passphrase", path)
		}
		return []age.Identity{id}, nil
	}
	if bytes.HasPrefix(text, []byte(magic)) {
		return nil, fmt.Errorf("%s: this file of identities is encrypted itself: decrypt it first, with age -d", path)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: this is no file of identities, such as age-keygen makes", path) // Without it: it is secret.
	}
	return ids, nil
}
