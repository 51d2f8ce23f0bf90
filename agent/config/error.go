package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Error lists all that is wrong with a configuration. It shows names and
// places, never a line of the file: that may hold a secret id.
type Error struct {
	Problems []Problem
	// Sources are the files and folders that were read, or could not be: once one of them
	// differs, the configuration may be valid.
	Sources Sources
}

// Problem is one thing that is wrong. File is "" for flags and environment
// variables; Line and Column count from 1 and are 0 where there is no place.
type Problem struct {
	File         string
	Line, Column int
	Text         string
}

func (p Problem) String() string {
	switch {
	case p.File == "":
		return p.Text
	case p.Line == 0:
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
}

// Error has a line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Invalid returns an [Error] of one problem that has no place in a file.
func Invalid(format string, args ...any) *Error {
	return &Error{Problems: []Problem{{Text: fmt.Sprintf(format, args...)}}}
}

// placeOf returns the file and line of a block, for users. It returns "" for flags and
// environment variables.
func placeOf(at hcl.Range) string {
	if at.Filename == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", at.Filename, at.Start.Line)
}

// problems collects what is wrong while a configuration is read.
type problems []Problem

func (ps *problems) at(r hcl.Range, format string, args ...any) {
	*ps = append(*ps, Problem{r.Filename, r.Start.Line, r.Start.Column, fmt.Sprintf(format, args...)})
}

func (l *loader) hcl(diags hcl.Diagnostics) {
	ps := &l.problems
	for _, d := range diags {
		if strings.HasSuffix(d.Detail, "value must be known") {
			continue // The consequence of a diagnostic that says why.
		}
		text := strings.TrimSuffix(d.Summary, ".") + ": " + d.Detail
		switch unknown := l.unknownVariable(d); {
		case d.Subject == nil:
			*ps = append(*ps, Problem{Text: text})
		case unknown != "":
			ps.at(*d.Subject, "%s", unknown)
		default:
			ps.at(*d.Subject, "%s", text+l.hint(d))
		}
	}
}

// err returns nil where nothing is wrong, and else an [*Error] in the order of
// the files.
func (ps problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return &Error{Problems: inOrder(ps)}
}

// inOrder sorts problems by their places, and leaves out those that were found twice.
func inOrder(ps []Problem) []Problem {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(ps)
}
