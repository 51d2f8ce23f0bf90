// Package templates holds the ready-made templates, for services of the
// platform and for what they use. "deaddrop templates list" shows them.
package templates

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.env *.json
var files embed.FS

// Names are the names of all templates, sorted.
func Names() []string {
	names, err := fs.Glob(files, "*")
	if err != nil {
		return nil // The pattern is a constant.
	}
	return names
}

// Read returns a template's text.
func Read(name string) (text string, ok bool) {
	content, err := files.ReadFile(name)
	return string(content), err == nil
}

// Title is what a template is for: its first line, which is a comment.
func Title(name string) string {
	text, _ := Read(name)
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(line, "{{- /*"), "*/ -}}"))
}
