package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/input"
)

// Recipients takes public keys of age or SSH, or files with one such key a line. It
// returns the keys themselves, too. What it returns has encrypted something already:
// age does not take every key together with every other.
func Recipients(texts []string) (all []age.Recipient, keys []string, err error) {
	for _, text := range texts {
		some, lines, err := recipients(text)
		if err != nil {
			return nil, nil, err
		}
		all, keys = append(all, some...), append(keys, lines...)
	}
	if _, err := encode(&Set{}, all); err != nil {
		return nil, nil, err
	}
	return all, keys, nil
}

func recipients(text string) ([]age.Recipient, []string, error) {
	for _, prefix := range []string{"age1", "ssh-", "AGE-SECRET-KEY-"} { // The last is refused, and not read as a path.
		if strings.HasPrefix(text, prefix) {
			r, err := archive.ParseRecipient(text)
			return []age.Recipient{r}, []string{text}, err
		}
	}
	return archive.ReadRecipientLines(text)
}

// PGPKey reads a public key of PGP, armored or not, and returns it as Vault takes it:
// binary, in base64. It has encrypted something already, as Vault will: a key that
// only signs, or has expired, or was revoked, is refused.
func PGPKey(path string) (string, error) {
	text, err := input.Read(path, maxFile)
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
	if err := tryPGP(out.Bytes()); err != nil {
		return "", fmt.Errorf("%s: nothing can be encrypted to this key: does it only sign, has it expired, or was it revoked? (%w)", path, err)
	}
	return base64.StdEncoding.EncodeToString(out.Bytes()), nil
}

// tryPGP does what Vault does with a key, which it does only when it has initialised
// itself, and then loses the keys.
func tryPGP(key []byte) error {
	entity, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(key)))
	if err != nil {
		return err
	}
	w, err := openpgp.Encrypt(io.Discard, []*openpgp.Entity{entity}, nil, nil, nil)
	if err != nil {
		return err
	}
	_, err = w.Write([]byte("test"))
	return errors.Join(err, w.Close())
}
