package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// What can be wrong with a file.
var (
	ErrNotBackup = errors.New("this is not a backup of tenantctl")
	ErrNewer     = errors.New("a newer tenantctl made this backup; use that one")
	ErrDamaged   = errors.New("the backup is damaged")
	ErrKey       = errors.New("the backup cannot be decrypted")
)

// Encryption is how a file is encrypted.
type Encryption string

// The ways.
const (
	Plain      Encryption = "none"
	Passphrase Encryption = "passphrase"
	Recipients Encryption = "recipients"
)

const magic = "age-encryption.org/v1\n"

// Source is a file with a backup. It is read from its beginning as often as
// [Source.Open] is called.
type Source struct {
	file       io.ReadSeeker
	encryption Encryption
	armored    bool
	key        age.Identity
}

// NewSource looks at how a file begins.
func NewSource(file io.ReadSeeker) (*Source, error) {
	s := &Source{file: file, encryption: Plain}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("it is read twice, which this is not for: %w", err)
	}
	head, err := bufio.NewReaderSize(file, 64).Peek(len(armor.Header))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	s.armored = bytes.HasPrefix(head, []byte(armor.Header))
	switch {
	case s.armored, bytes.HasPrefix(head, []byte(magic)):
		s.encryption, err = s.probe()
		return s, err
	case !bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return nil, ErrNotBackup
	}
	return s, nil
}

// probe tells what would decrypt the file.
func (s *Source) probe() (Encryption, error) {
	r, err := s.rewind()
	if err != nil {
		return "", err
	}
	_, err = age.Decrypt(r, nobody{})
	var no *age.NoIdentityMatchError
	switch {
	case !errors.As(err, &no):
		return "", fmt.Errorf("%w: %w", ErrNotBackup, err)
	case len(no.StanzaTypes) == 1 && no.StanzaTypes[0] == "scrypt":
		return Passphrase, nil
	}
	return Recipients, nil
}

// nobody is an identity that decrypts nothing.
type nobody struct{}

func (nobody) Unwrap([]*age.Stanza) ([]byte, error) { return nil, age.ErrIncorrectIdentity }

// Encryption is how the file is encrypted.
func (s *Source) Encryption() Encryption { return s.encryption }

// Unlock finds the key of the file. It may take a second for a passphrase, once.
func (s *Source) Unlock(identities ...age.Identity) error {
	r, err := s.rewind()
	if err != nil {
		return err
	}
	header, err := age.ExtractHeader(r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	key, err := age.DecryptHeader(header, identities...)
	var no *age.NoIdentityMatchError
	switch {
	case errors.As(err, &no) && s.encryption == Passphrase:
		return fmt.Errorf("%w: the passphrase is wrong", ErrKey)
	case errors.As(err, &no):
		return fmt.Errorf("%w: it is for other recipients than these identities", ErrKey)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	s.key = age.NewInjectedFileKeyIdentity(key)
	return nil
}

func (s *Source) rewind() (io.Reader, error) {
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if s.armored {
		return armor.NewReader(s.file), nil
	}
	return s.file, nil
}

// Open begins to read, after [Source.Unlock] where the file is encrypted.
func (s *Source) Open() (*Reader, error) {
	r, err := s.rewind()
	if err != nil {
		return nil, err
	}
	if s.encryption != Plain {
		if s.key == nil {
			return nil, fmt.Errorf("%w without an identity or a passphrase", ErrKey)
		}
		if r, err = age.Decrypt(r, s.key); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return newReader(r)
}

// Verify reads a backup to its end, and tells what is in it. see, if it is not
// nil, is given every record; they may yet turn out to be damaged. A secret that is in it
// twice is damage: what a dry run shows of the second would not be what a restore does
// after the first.
func (s *Source) Verify(see func(Record)) (Header, Counts, error) {
	r, err := s.Open()
	if err != nil {
		return Header{}, Counts{}, err
	}
	secrets := map[string]bool{}
	for {
		record, err := r.Next()
		if err == nil && record.Secret != nil {
			if secrets[record.Secret.Path] {
				return r.Header, r.counts, fmt.Errorf("%w: line %d: the secret %q is in it twice", ErrDamaged, r.number, record.Secret.Path)
			}
			secrets[record.Secret.Path] = true
		}
		switch {
		case errors.Is(err, io.EOF):
			return r.Header, r.counts, nil
		case err != nil:
			return r.Header, r.counts, err
		case see != nil:
			see(record)
		}
	}
}

// Reader reads a backup.
type Reader struct {
	Header Header

	packed *bufio.Reader
	zip    *gzip.Reader
	lines  *bufio.Reader
	sum    hash.Hash
	number int
	counts Counts
	done   bool
}

func newReader(r io.Reader) (*Reader, error) {
	out := &Reader{packed: bufio.NewReader(r), sum: sha256.New()}
	var err error
	if out.zip, err = gzip.NewReader(out.packed); err != nil {
		return nil, notBackup(err)
	}
	out.zip.Multistream(false)
	out.lines = bufio.NewReaderSize(out.zip, 64<<10)
	text, err := out.line()
	if err != nil {
		return nil, notBackup(err)
	}
	// What a newer version says beyond this is not known, so it is read loosely.
	var first line
	switch err := json.Unmarshal(text, &first); {
	case err != nil || first.Header == nil || first.Header.Format != formatName:
		return nil, ErrNotBackup
	case first.Header.Version > formatVersion:
		return nil, fmt.Errorf("%w (its format is %d; this one knows %d)", ErrNewer, first.Header.Version, formatVersion)
	}
	out.Header = *first.Header
	out.sum.Write(text)
	return out, nil
}

// notBackup says of a fault at the beginning whether it is damage.
func notBackup(err error) error {
	if errors.Is(err, gzip.ErrHeader) {
		return ErrNotBackup
	}
	return damaged(err)
}

func damaged(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: its end is missing", ErrDamaged)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// Next returns the next record, and io.EOF after the last one, when everything
// was found to be as it was written.
func (r *Reader) Next() (Record, error) {
	if r.done {
		return Record{}, io.EOF
	}
	text, err := r.line()
	if err != nil {
		return Record{}, damaged(err)
	}
	var l line
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil || l.Header != nil {
		return Record{}, fmt.Errorf("%w: line %d is not understood", ErrDamaged, r.number) // Without it: it is a secret.
	}
	if l.End != nil {
		return Record{}, r.end(*l.End)
	}
	if err := l.Record.check(); err != nil {
		return Record{}, fmt.Errorf("%w: line %d: %w", ErrDamaged, r.number, err)
	}
	r.sum.Write(text)
	r.counts.add(l.Record)
	return l.Record, nil
}

// Counts are those of what was read.
func (r *Reader) Counts() Counts { return r.counts }

// end compares, and returns io.EOF if all is well.
func (r *Reader) end(e end) error {
	switch {
	case e.SHA256 != hex.EncodeToString(r.sum.Sum(nil)):
		return fmt.Errorf("%w: its checksum is another one", ErrDamaged)
	case e.Counts != r.counts:
		return fmt.Errorf("%w: it does not hold as much as it says", ErrDamaged)
	}
	// Reading on is what makes gzip and age check their own ends.
	if _, err := r.lines.ReadByte(); !errors.Is(err, io.EOF) {
		return after(err)
	}
	if _, err := r.packed.ReadByte(); !errors.Is(err, io.EOF) {
		return after(err)
	}
	r.done = true
	return io.EOF
}

func after(err error) error {
	if err != nil {
		return damaged(err)
	}
	return fmt.Errorf("%w: something stands behind its end", ErrDamaged)
}

// line reads a line with its newline. It is valid until the next call.
func (r *Reader) line() ([]byte, error) {
	r.number++
	var long []byte
	for {
		part, err := r.lines.ReadSlice('\n')
		if err == nil && long == nil {
			return part, nil
		}
		if long = append(long, part...); len(long) > maxLine {
			return nil, fmt.Errorf("line %d is too long", r.number)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return long, err
		}
	}
}
