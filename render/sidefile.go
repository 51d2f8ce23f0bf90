package render

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/smarteros/deaddrop/render/filemode"
)

// SideFile is a file that a template writes beside its own, by the function
// "writeToFile". It is for whoever executes the template to write it.
type SideFile struct {
	Path string
	// User and Group are names or ids; "" for the agent's own.
	User, Group string
	Mode        fs.FileMode
	Content     []byte
}

// writeToFile takes consul-template's arguments. "append" adds to what the same
// execution has written to the path before, not to what is on disk: each render
// gives the whole file.
func (e *execution) writeToFile(path, user, group, perms string, args ...string) (string, error) {
	if len(args) == 0 || len(args) > 2 {
		return "", problem("writeToFile wants a path, a user, a group, a mode, optional flags, and the content")
	}
	content, flags := args[len(args)-1], []string(nil)
	if len(args) == 2 {
		flags = strings.Split(args[0], ",")
	}
	if !filepath.IsAbs(path) && !e.texts[path] { // Errors of writing will show it.
		return "", problem("a path of writeToFile that is not in the template's text must begin with /")
	}
	mode, err := sideFileMode(perms)
	if err != nil {
		return "", err
	}
	add := false
	for _, flag := range flags {
		switch strings.TrimSpace(flag) {
		case "append":
			add = true
		case "newline":
			content += "\n"
		case "":
		default:
			return "", problem("the flags of writeToFile are \"append\" and \"newline\"")
		}
	}
	file := SideFile{Path: path, User: user, Group: group, Mode: mode, Content: []byte(content)}
	if written := len(content) + sizeOf(e.result.Files); written > largest {
		return "", errTooLarge
	}
	i := slices.IndexFunc(e.result.Files, func(f SideFile) bool { return f.Path == path })
	switch {
	case i < 0:
		e.result.Files = append(e.result.Files, file)
	case add:
		e.result.Files[i].Content = append(e.result.Files[i].Content, content...)
	default:
		e.result.Files[i] = file
	}
	return "", nil
}

func sizeOf(files []SideFile) int {
	n := 0
	for _, f := range files {
		n += len(f.Content)
	}
	return n
}

// sideFileMode reads a mode. Its errors do not show it: it may be a value of a secret
// that stands in the wrong place.
func sideFileMode(perms string) (fs.FileMode, error) {
	if perms == "" {
		return 0o600, nil
	}
	mode, err := filemode.Parse(perms, filemode.File)
	var refused *filemode.Error
	switch {
	case errors.As(err, &refused):
		return 0, problem("the mode of writeToFile lets every user write, or the owner not read; write one such as \"0640\"")
	case err != nil:
		return 0, problem("writeToFile wants a mode such as \"0600\" behind path, user and group")
	}
	return mode, nil
}

const errNoMap problem = "what scratch keeps there is not a map"

// scratch keeps values for the length of one execution.
type scratch struct{ values map[string]any }

// Key tells whether there is a value.
func (s *scratch) Key(key string) bool {
	_, ok := s.values[key]
	return ok
}

// Get returns a value, or nil.
func (s *scratch) Get(key string) any { return s.values[key] }

// Set keeps a value. It writes nothing, as all that keeps.
func (s *scratch) Set(key string, value any) string {
	if s.values == nil {
		s.values = map[string]any{}
	}
	s.values[key] = value
	return ""
}

// SetX keeps a value unless there is one.
func (s *scratch) SetX(key string, value any) string {
	if !s.Key(key) {
		s.Set(key, value)
	}
	return ""
}

// MapSet keeps a value in a map that is kept.
func (s *scratch) MapSet(key, field string, value any) (string, error) {
	return s.mapSet(key, field, value, true)
}

// MapSetX is MapSet, unless there is a value.
func (s *scratch) MapSetX(key, field string, value any) (string, error) {
	return s.mapSet(key, field, value, false)
}

func (s *scratch) mapSet(key, field string, value any, overwrite bool) (string, error) {
	s.SetX(key, map[string]any{})
	fields, ok := s.values[key].(map[string]any)
	if !ok {
		return "", errNoMap
	}
	if err := checkCycle(fields, value); err != nil {
		return "", err
	}
	if _, taken := fields[field]; overwrite || !taken {
		fields[field] = value
	}
	return "", nil
}

// MapValues are the values of a map that is kept, in the order of their names.
func (s *scratch) MapValues(key string) ([]any, error) {
	fields, ok := s.values[key].(map[string]any)
	if !ok && s.Key(key) {
		return nil, errNoMap
	}
	var all []any
	for _, name := range sortedKeys(fields) {
		all = append(all, fields[name])
	}
	return all, nil
}
