// Package filemode reads the modes of files as users write them: octal digits in
// a text, and decimal numbers, as Vault Agent, consul-template and Kubernetes
// have them.
package filemode

import (
	"fmt"
	"io/fs"
	"strconv"
)

// Kind is what a mode is for.
type Kind int

const (
	// File is for files, which hold secrets.
	File Kind = iota
	// Socket is for sockets. Whoever may write to a socket may connect.
	Socket
	// Folder is for folders. Whoever may write to one may replace the files in it.
	Folder
)

var examples = map[Kind]string{File: `"0600" or "0440"`, Socket: `"0600" or "0660"`, Folder: `"0700" or "0750"`}

// Error is a mode that is refused.
type Error struct {
	// Given is the mode as the user wrote it.
	Given string
	// Problem says why it is refused.
	Problem string
	// Suggestion is the mode that was probably meant, such as "0640".
	Suggestion string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s %s; write %q", e.Given, e.Problem, e.Suggestion)
}

// Parse reads octal digits, such as "0640".
func Parse(text string, kind Kind) (fs.FileMode, error) {
	given := strconv.Quote(text)
	n, err := strconv.ParseUint(text, 8, 32)
	decimal, isDecimal := plausibleDecimal(text)
	switch {
	case (err != nil || !plausible(n)) && isDecimal:
		return 0, &Error{given, "is read as octal digits, but looks like the decimal number for mode " + octal(decimal), octal(decimal)}
	case err != nil || n > 0o777:
		return 0, fmt.Errorf(`%s is not a file mode; write one such as %s`, given, examples[kind])
	}
	return check(n, given, kind)
}

// FromNumber reads a number: 416 is 0640, as for Vault Agent.
func FromNumber(n int64, kind Kind) (fs.FileMode, error) {
	given := strconv.FormatInt(n, 10)
	if n < 0 {
		return 0, fmt.Errorf(`%s is not a file mode; write one such as %s`, given, examples[kind])
	}
	mode := uint64(n)
	// Whoever writes 640 means the digits, whatever mode the number is.
	if digits, err := strconv.ParseUint(given, 8, 32); err == nil && plausible(digits) {
		return 0, &Error{given, "is a decimal number, for mode " + octal(mode), octal(digits)}
	}
	if mode > 0o777 {
		return 0, fmt.Errorf(`%s is not a file mode, as a number is decimal; write one such as %s`, given, examples[kind])
	}
	if n > 0 {
		given += ", the decimal number for mode " + octal(mode) + ","
	}
	return check(mode, given, kind)
}

// check refuses modes that nobody means.
func check(mode uint64, given string, kind Kind) (fs.FileMode, error) {
	switch {
	case kind == Socket && mode&0o600 != 0o600:
		return 0, &Error{given, "does not let the owner connect", octal(mode | 0o600)}
	case kind == Folder && mode&0o002 != 0:
		return 0, &Error{given, "lets every user of this machine put other files in place of these", octal(mode&^0o002 | 0o700)}
	case kind == Folder && mode&0o700 != 0o700:
		return 0, &Error{given, "shuts out the folder's owner", octal(mode | 0o700)}
	case kind == File && mode == 0:
		return 0, &Error{given, "lets nobody read the file", "0600"}
	case kind == File && mode&0o400 == 0:
		return 0, &Error{given, "does not let the owner read the file", octal((mode | 0o400) &^ 0o002)}
	case kind == File && mode&0o002 != 0:
		return 0, &Error{given, "lets every user write to the file", octal(closed(mode))}
	}
	return fs.FileMode(mode), nil
}

// closed is the mode of a secret that was opened to everybody: the owner's, and the
// group's to read where it might do anything.
func closed(mode uint64) uint64 {
	if mode&0o070 != 0 {
		return 0o640
	}
	return 0o600
}

// plausible reports whether a mode is one that somebody chooses for a file: the
// owner may read, nobody may write without reading, and no class of users may do
// what the class before it may not.
func plausible(mode uint64) bool {
	owner, group, others := mode>>6&7, mode>>3&7, mode&7
	sane := func(bits uint64) bool { return bits == 0 || bits&4 != 0 }
	return mode <= 0o777 && owner != 0 && sane(owner) && sane(group) && sane(others) &&
		group&^owner == 0 && others&^group == 0
}

// plausibleDecimal reads digits without a leading zero as a decimal number.
func plausibleDecimal(text string) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return n, err == nil && text[0] != '0' && plausible(n)
}

func octal(mode uint64) string { return fmt.Sprintf("%04o", mode) }
