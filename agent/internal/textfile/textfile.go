// Package textfile reads files that people, and programs on other systems, write:
// configurations, templates, ids, certificates.
package textfile

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/smarteros/deaddrop/render/safefile"
)

// The byte order marks of UTF-8 and UTF-16.
var (
	utf8Mark        = []byte{0xEF, 0xBB, 0xBF}
	utf16LittleMark = []byte{0xFF, 0xFE}
	utf16BigMark    = []byte{0xFE, 0xFF}
)

// ErrUTF16 is a file that PowerShell's > has written, as a rule.
var ErrUTF16 = errors.New("the file is UTF-16; write it anew as UTF-8, in PowerShell by Out-File -Encoding utf8")

// MaxSize is how large a file may be, in bytes. It is far more than any configuration,
// template, id or certificate has.
const MaxSize = 8 << 20

// Read returns the content of a regular file of at most [MaxSize] bytes, without the byte
// order mark that editors on Windows put in front of it. It does not wait for a FIFO; only
// a stream of the process itself, see [IsStream], is read to its end.
//
// Errors are of type [*fs.PathError]; the cause for a file that the process may not read
// is an [*AccessError].
func Read(path string) ([]byte, error) {
	var content []byte
	var err error
	if IsStream(path) {
		content, err = readStream(path)
	} else {
		content, err = safefile.Read(path, MaxSize)
	}
	var inPath *fs.PathError
	switch {
	case err == nil:
		if content, err = Clean(content); err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		return content, nil
	case errors.Is(err, fs.ErrPermission):
		err = denied(path, err)
	case errors.Is(err, safefile.ErrNotRegular) && isFolder(path):
		err = syscall.EISDIR
	case errors.As(err, &inPath):
		err = inPath.Err
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: err}
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// IsStream reports whether a path names a descriptor of the process that is no regular
// file, such as /dev/stdin in a pipeline, or the /dev/fd/63 of a process substitution. Its
// content can be read once. A link to one, which somebody else may have made, is none.
func IsStream(path string) bool {
	isOwn := path == "/dev/stdin"
	for _, pattern := range []string{"/dev/fd/[0-9]*", "/proc/self/fd/[0-9]*"} {
		matches, _ := filepath.Match(pattern, path)
		isOwn = isOwn || matches
	}
	if !isOwn {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}

// readStream opens without blocking, so that the read ends when a named pipe has lost its
// writer.
func readStream(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return safefile.ReadStream(f, path, MaxSize)
}

// Clean takes the byte order mark away.
func Clean(content []byte) ([]byte, error) {
	if bytes.HasPrefix(content, utf16LittleMark) || bytes.HasPrefix(content, utf16BigMark) {
		return nil, ErrUTF16
	}
	return bytes.TrimPrefix(content, utf8Mark), nil
}

// HasMark reports whether a regular file begins with a byte order mark. It reports
// false for one that cannot be read.
func HasMark(path string) bool {
	f, _, err := safefile.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var start [3]byte
	n, _ := f.Read(start[:])
	for _, mark := range [][]byte{utf8Mark, utf16LittleMark, utf16BigMark} {
		if bytes.HasPrefix(start[:n], mark) {
			return true
		}
	}
	return false
}

// KeyPair reads a certificate and its key.
func KeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := Read(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := Read(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}
