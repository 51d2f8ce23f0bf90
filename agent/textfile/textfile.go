// Package textfile reads files that people, and programs on other systems, write:
// configurations, templates, ids, certificates.
package textfile

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
)

// The byte order marks of UTF-8 and UTF-16.
var (
	utf8Mark        = []byte{0xEF, 0xBB, 0xBF}
	utf16LittleMark = []byte{0xFF, 0xFE}
	utf16BigMark    = []byte{0xFE, 0xFF}
)

// ErrUTF16 is a file that PowerShell's > has written, as a rule.
var ErrUTF16 = errors.New("the file is UTF-16; write it anew as UTF-8, in PowerShell by Out-File -Encoding utf8")

// Read returns the content of a file without the byte order mark that editors on
// Windows put in front of it. Errors are of type [*fs.PathError]; the cause for a file
// that the process may not read is an [*AccessError].
func Read(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: denied(path, err)}
	}
	if err != nil {
		return nil, err
	}
	content, err = Clean(content)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return content, nil
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
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return false // A pipe would lose its content.
	}
	f, err := os.Open(path)
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
