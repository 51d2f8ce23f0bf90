package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/input"
)

// Namespace is what signatures are for: one by the same key over something else, such as
// a commit, is none of a backup. "ssh-keygen -Y" takes it as -n.
const Namespace = formatName

// maxSignature is the size of the largest signature, in bytes. One by an RSA key of 16384
// bits has 6 KiB.
const maxSignature = 64 << 10

// ErrSignature is the error for a backup whose signature is missing or wrong.
var ErrSignature = errors.New("the backup is not signed by a key that is trusted")

// ErrKeyPassphrase is the error for a secret key that needs a passphrase.
var ErrKeyPassphrase = errors.New("the key has a passphrase")

// ReadSigner reads a secret key of SSH. Where that has a passphrase, and none is given, it
// is [ErrKeyPassphrase].
func ReadSigner(path string, passphrase []byte) (ssh.Signer, error) {
	text, err := input.Read(path, maxKeys)
	if err != nil {
		return nil, err
	}
	var signer ssh.Signer
	if passphrase == nil {
		signer, err = ssh.ParsePrivateKey(text)
	} else {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(text, passphrase)
	}
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("%s: %w", path, ErrKeyPassphrase)
	case err != nil && passphrase != nil:
		return nil, fmt.Errorf("%s: the passphrase is wrong", path)
	case err != nil: // Without it: it is secret.
		return nil, fmt.Errorf("%s: this is no secret key of SSH, such as \"ssh-keygen -t ed25519\" makes", path)
	}
	return signer, nil
}

// ReadSignKeys takes public keys of SSH: one as text, or a file with one a line. Lines of an
// allowed_signers file are refused with a hint: its principals, namespaces and dates of
// validity would have no effect.
func ReadSignKeys(text string) ([]ssh.PublicKey, error) {
	isKey := strings.Contains(text, " ") && slices.ContainsFunc([]string{"ssh-", "ecdsa-", "sk-"}, func(prefix string) bool { return strings.HasPrefix(text, prefix) })
	if !isKey {
		content, err := input.Read(text, maxKeys)
		if err != nil {
			return nil, err
		}
		keys, err := parseSignKeys(string(content))
		if err != nil {
			return nil, fmt.Errorf("%s, %w", text, err)
		}
		return keys, nil
	}
	return parseSignKeys(text)
}

func parseSignKeys(text string) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err == nil && len(options) > 0 || err != nil && isAllowedSigner(line) {
			return nil, fmt.Errorf("line %d: there is something before the key, such as a principal of an allowed_signers file: leave it out, and begin with the type, such as ssh-ed25519", i+1)
		}
		if _, isCertificate := key.(*ssh.Certificate); err != nil || len(options) > 0 || isCertificate {
			return nil, fmt.Errorf("line %d: this is no public key of SSH, such as ssh-ed25519 …, without options", i+1)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("line 1: there is no public key of SSH")
	}
	return keys, nil
}

// isAllowedSigner reports whether a line is a key after a principal and options.
func isAllowedSigner(line string) bool {
	_, rest, _ := strings.Cut(line, " ")
	_, _, _, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	return err == nil
}

// Signing signs what is written to it. It keeps a checksum of that, not the bytes.
type Signing struct {
	w      *io.PipeWriter
	result chan signed
}

type signed struct {
	signature *sshsig.Signature
	err       error
}

// NewSigning begins to sign.
func NewSigning(key ssh.Signer) *Signing {
	r, w := io.Pipe()
	s := &Signing{w, make(chan signed, 1)}
	go func() {
		signature, err := sshsig.Sign(r, key, sshsig.HashSHA512, Namespace)
		_ = r.CloseWithError(err)
		s.result <- signed{signature, err}
	}()
	return s
}

func (s *Signing) Write(b []byte) (int, error) { return s.w.Write(b) }

// Close returns the signature of all that was written, as "ssh-keygen -Y sign" writes it.
func (s *Signing) Close() ([]byte, error) {
	_ = s.w.Close()
	result := <-s.result
	if result.err != nil {
		return nil, fmt.Errorf("signing: %w", result.err)
	}
	return sshsig.Armor(result.signature), nil
}

// Abort ends what [Signing.Close] does not.
func (s *Signing) Abort() { _ = s.w.CloseWithError(errors.New("aborted")) }

// CheckSignature returns nil if one of the keys has signed the file.
func CheckSignature(file *Pinned, signature []byte, keys []ssh.PublicKey) error {
	s, err := sshsig.Unarmor(signature)
	if err != nil {
		return fmt.Errorf("%w: its signature is none of SSH", ErrSignature)
	}
	if s.Namespace != Namespace {
		return fmt.Errorf("%w: its signature is for %q, and not for %q", ErrSignature, s.Namespace, Namespace)
	}
	for _, key := range keys {
		if !bytes.Equal(key.Marshal(), s.PublicKey.Marshal()) {
			continue
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := sshsig.Verify(file, s, key, s.HashAlgorithm, Namespace); errors.Is(err, ErrReplaced) {
			return err
		} else if err != nil {
			return fmt.Errorf("%w: its signature is for other content", ErrSignature)
		}
		return nil
	}
	return fmt.Errorf("%w: the key %s has signed it", ErrSignature, ssh.FingerprintSHA256(s.PublicKey))
}

// ReadSignature reads a file with a signature.
func ReadSignature(path string) ([]byte, error) { return input.Read(path, maxSignature) }
