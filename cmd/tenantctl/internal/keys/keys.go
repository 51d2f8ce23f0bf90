// Package keys keeps the unseal keys and the root token of a Vault in a file: as
// plain JSON, or encrypted with age. The JSON is that of "vault operator init
// -format=json", with a few names added, so that the one reads what the other has
// written.
package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/archive"
	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/input"
)

// Set is what an initialisation gives.
type Set struct {
	Address   string   `json:"vault_address,omitempty"`
	Keys      []string `json:"unseal_keys_b64"`
	Shares    int      `json:"unseal_shares"`
	Threshold int      `json:"unseal_threshold"`
	// Recovery are the keys of a Vault that unseals itself. They unseal nothing,
	// but a new root token takes them.
	Recovery          []string `json:"recovery_keys_b64,omitempty"`
	RecoveryShares    int      `json:"recovery_keys_shares,omitempty"`
	RecoveryThreshold int      `json:"recovery_keys_threshold,omitempty"`
	RootToken         string   `json:"root_token,omitempty"`
	// PGP says that the keys are messages of PGP, one for each of its owners.
	PGP bool `json:"keys_pgp_encrypted,omitempty"`
	// RootTokenPGP says that the root token is a message of PGP.
	RootTokenPGP bool `json:"root_token_pgp_encrypted,omitempty"`
	// Recipients are those that the file is encrypted to.
	Recipients []string `json:"age_recipients,omitempty"`
}

// Any are the keys that unseal, or else those for recovery.
func (s *Set) Any() []string {
	if len(s.Keys) > 0 {
		return s.Keys
	}
	return s.Recovery
}

// ErrPGP is for keys that only their owners can decrypt.
var ErrPGP = errors.New(`the keys in it are encrypted with PGP: let their owners decrypt them (base64 -d | gpg -d), and give enough of them on standard input, one a line (--keys-file -)`)

// maxFile is the size of the largest file, in bytes: 255 keys for PGP.
const maxFile = 4 << 20

// File is an open file of keys.
type File struct {
	Set
	path string
	// encrypted says that the file is one of age; recipients are those that a new
	// version of it is for.
	encrypted  bool
	recipients []age.Recipient
	text       []byte // decrypted
}

// Open reads a file of keys, with these identities if it is encrypted.
func Open(path string, identityFiles []string) (*File, error) {
	text, err := input.Read(path, maxFile)
	if err != nil {
		return nil, err
	}
	file := &File{path: path, encrypted: isAge(text)}
	if file.encrypted {
		if text, err = decrypt(text, identityFiles); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if file.Set, err = parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	file.text = text
	return file, file.findRecipients()
}

// findRecipients are those that the file names.
func (f *File) findRecipients() error {
	for _, text := range f.Recipients {
		r, err := archive.ParseRecipient(text)
		if err != nil {
			return fmt.Errorf("%s: a recipient in it: %w", f.path, err)
		}
		f.recipients = append(f.recipients, r)
	}
	return nil
}

const ageHeader = "age-encryption.org/v1"

func isAge(text []byte) bool {
	return bytes.HasPrefix(text, []byte(ageHeader)) || bytes.HasPrefix(text, []byte(armor.Header))
}

func decrypt(text []byte, identityFiles []string) ([]byte, error) {
	if len(identityFiles) == 0 {
		return nil, errors.New("it is encrypted with age: give --age-identity with the file of a secret key")
	}
	var ids []age.Identity
	for _, path := range identityFiles {
		some, err := archive.ReadIdentities(path)
		if err != nil {
			return nil, fmt.Errorf("--age-identity: %w", err)
		}
		ids = append(ids, some...)
	}
	var r io.Reader = bytes.NewReader(text)
	if bytes.HasPrefix(text, []byte(armor.Header)) {
		r = armor.NewReader(r)
	}
	plain, err := age.Decrypt(r, ids...)
	if err != nil {
		return nil, errors.New("it is encrypted to others than the --age-identity that was given, or damaged")
	}
	all, err := io.ReadAll(plain)
	if err != nil {
		return nil, errors.New("it is damaged, or cut off")
	}
	return all, nil
}

func isJSON(text []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) }

// parse takes JSON, or else lines. Errors do not quote what they are about.
func parse(text []byte) (Set, error) {
	var s Set
	if !isJSON(text) {
		return lines(string(text))
	}
	if json.Unmarshal(text, &s) != nil {
		return Set{}, errors.New(`this is no file of keys, such as "tenantctl setup --init" or "vault operator init -format=json" writes`)
	}
	if len(s.Any()) == 0 && s.RootToken == "" {
		return Set{}, errors.New("there is neither a key nor a root token in it")
	}
	s.PGP = s.PGP || IsPGP(s.Any())
	return s, nil
}

// IsPGP tells whether these are messages of PGP: no key of Vault has so many bytes.
func IsPGP(all []string) bool { return len(all) > 0 && len(all[0]) > 128 }

var (
	keyLine   = regexp.MustCompile(`^(?:(?:Unseal|Recovery) Key \d+: )?([A-Za-z0-9+/]{20,}={0,2})$`)
	tokenLine = regexp.MustCompile(`^Initial Root Token: (\S+)$`)
)

// lines takes keys one a line, and what "vault operator init" prints.
func lines(text string) (Set, error) {
	var s Set
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if m := keyLine.FindStringSubmatch(line); m != nil {
			s.Keys = append(s.Keys, m[1])
		} else if m := tokenLine.FindStringSubmatch(line); m != nil {
			s.RootToken = m[1]
		}
	}
	if len(s.Keys) == 0 {
		return Set{}, errors.New("there is no key in it: it takes JSON as of \"vault operator init -format=json\", or one key a line")
	}
	return s, nil
}

// Read takes keys from standard input, in any form that [Open] takes but age's.
func Read(r io.Reader) (*File, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	s, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return &File{Set: s}, nil
}
