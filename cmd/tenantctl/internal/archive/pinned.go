package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// pinnedChunk is the size of the parts that a [Pinned] file has a checksum of, in bytes.
const pinnedChunk = 1 << 20

// ErrReplaced is the error for a file that changes while it is read.
var ErrReplaced = errors.New("the file has changed since it was verified")

// Pinned is a file that reads as it was at one time, or not at all: a backup is read
// several times, and who can write the file must not have one content verified and
// another restored. It keeps a checksum of each part of the file, not the file itself.
type Pinned struct {
	file   io.ReadSeeker
	sums   [][sha256.Size]byte
	size   int64
	sha256 string

	at    int64
	chunk []byte // the part that was read last, and
	first int64  // where that begins
}

// Pin reads a file to its end.
func Pin(file io.ReadSeeker) (*Pinned, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("it is read several times, which this is not for: %w", err)
	}
	p, whole := &Pinned{file: file}, sha256.New()
	buffer := make([]byte, pinnedChunk)
	for {
		n, err := io.ReadFull(file, buffer)
		if n > 0 {
			p.sums = append(p.sums, sha256.Sum256(buffer[:n]))
			p.size += int64(n)
			whole.Write(buffer[:n])
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			p.sha256 = hex.EncodeToString(whole.Sum(nil))
			return p, nil
		case err != nil:
			return nil, err
		}
	}
}

// SHA256 is that of the whole file, in hexadecimal.
func (p *Pinned) SHA256() string { return p.sha256 }

func (p *Pinned) Read(b []byte) (int, error) {
	if p.at >= p.size {
		return 0, io.EOF
	}
	if p.at < p.first || p.at >= p.first+int64(len(p.chunk)) {
		if err := p.load(p.at / pinnedChunk); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.chunk[p.at-p.first:])
	p.at += int64(n)
	return n, nil
}

// load reads a part, and keeps it only if it is what it was.
func (p *Pinned) load(number int64) error {
	first := number * pinnedChunk
	chunk := make([]byte, min(pinnedChunk, p.size-first))
	p.chunk, p.first = nil, 0
	if _, err := p.file.Seek(first, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.ReadFull(p.file, chunk); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrReplaced
	} else if err != nil {
		return err
	}
	if sha256.Sum256(chunk) != p.sums[number] {
		return ErrReplaced
	}
	p.chunk, p.first = chunk, first
	return nil
}

// Seek goes to a place that counts from the beginning.
func (p *Pinned) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset < 0 {
		return 0, errors.New("a pinned file seeks from its beginning only")
	}
	p.at = offset
	return offset, nil
}
