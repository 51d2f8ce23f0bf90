// Package archive is the file of a backup: a gzipped stream of JSON lines,
// encrypted with age. First comes a header, then the records, and at the end a
// line with their numbers and the SHA-256 of all lines before it, so that a file
// without its end, or with another one, is no backup.
package archive

import (
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
)

// What the header says.
const (
	formatName    = "tenantctl-backup"
	formatVersion = 1
)

// maxLine is the longest line, in bytes: a secret with all of its versions.
const maxLine = 256 << 20

// line is a line of the file. One field is set.
type line struct {
	Header *Header `json:"header,omitempty"`
	Record
	End *end `json:"end,omitempty"`
}

type end struct {
	Counts
	SHA256 string `json:"sha256"`
}

// Writer writes a backup. Without [Writer.Close] it has no end, and is none.
type Writer struct {
	zip    *gzip.Writer
	crypt  io.WriteCloser // nil for plain text
	sum    hash.Hash
	counts Counts
}

// NewWriter begins a backup for the recipients; with none it is plain text.
func NewWriter(w io.Writer, h Header, recipients ...age.Recipient) (*Writer, error) {
	out := &Writer{sum: sha256.New()}
	if len(recipients) > 0 {
		var err error
		if out.crypt, err = age.Encrypt(w, recipients...); err != nil {
			return nil, fmt.Errorf("encrypting: %w", err)
		}
		w = out.crypt
	}
	out.zip = gzip.NewWriter(w)
	h.Format, h.Version = formatName, formatVersion
	return out, out.write(line{Header: &h})
}

// Write adds a record.
func (w *Writer) Write(r Record) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("this cannot be backed up: %w", err)
	}
	w.counts.add(r)
	return w.write(line{Record: r})
}

// Close writes the end. It does not close what it writes to.
func (w *Writer) Close() error {
	if err := w.write(line{End: &end{w.counts, hex.EncodeToString(w.sum.Sum(nil))}}); err != nil {
		return err
	}
	if err := w.zip.Close(); err != nil {
		return err
	}
	if w.crypt == nil {
		return nil
	}
	return w.crypt.Close()
}

// Counts are those of what was written.
func (w *Writer) Counts() Counts { return w.counts }

func (w *Writer) write(l line) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return errors.New("a record cannot be written as JSON") // Without it: it is a secret.
	}
	if text.Len() > maxLine {
		return fmt.Errorf("a record has %d bytes; %d are the most", text.Len(), maxLine)
	}
	w.sum.Write(text.Bytes())
	_, err := w.zip.Write(text.Bytes())
	return err
}
