package keys

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/smarteros/deaddrop/cmd/tenantctl/archive"
)

// Recipients takes public keys of age or SSH, or files with one such key a line. It
// returns the keys themselves, too.
func Recipients(texts []string) (all []age.Recipient, keys []string, err error) {
	for _, text := range texts {
		lines := []string{text}
		if !strings.HasPrefix(text, "age1") && !strings.HasPrefix(text, "ssh-") {
			if lines, err = recipientLines(text); err != nil {
				return nil, nil, err
			}
		}
		for _, line := range lines {
			r, err := archive.ParseRecipient(line)
			if err != nil {
				return nil, nil, err
			}
			all, keys = append(all, r), append(keys, line)
		}
	}
	return all, keys, nil
}

// recipientLines are those of a file that [archive.ReadRecipients] takes.
func recipientLines(path string) ([]string, error) {
	if strings.HasPrefix(path, "AGE-SECRET-KEY-") {
		_, err := archive.ParseRecipient(path)
		return nil, err
	}
	if _, err := archive.ReadRecipients(path); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// PGPKey reads a public key of PGP, armored or not, and returns it as Vault takes it:
// binary, in base64.
func PGPKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return "", err
	}
	entities, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(text))
	if err != nil {
		entities, err = openpgp.ReadKeyRing(bytes.NewReader(text))
	}
	switch {
	case err != nil:
		return "", fmt.Errorf(`%s: this is no public key of PGP, such as "gpg --export" gives`, path)
	case len(entities) != 1:
		return "", fmt.Errorf("%s: there are %d keys in it; it takes one", path, len(entities))
	case entities[0].PrivateKey != nil:
		return "", fmt.Errorf(`%s: this is a secret key: give the public one, as of "gpg --export"`, path)
	}
	var out bytes.Buffer
	if err := entities[0].Serialize(&out); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return base64.StdEncoding.EncodeToString(out.Bytes()), nil
}
