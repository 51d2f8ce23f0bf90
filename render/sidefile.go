package render

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
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
		return "", errors.New("writeToFile wants a path, a user, a group, a mode, optional flags, and the content")
	}
	content, flags := args[len(args)-1], []string(nil)
	if len(args) == 2 {
		flags = strings.Split(args[0], ",")
	}
	mode, err := strconv.ParseUint(perms, 8, 32)
	if perms == "" {
		mode, err = 0o600, nil
	}
	if err != nil || mode > 0o777 {
		return "", errors.New("writeToFile wants a mode such as \"0600\" behind path, user and group")
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
			return "", errors.New("the flags of writeToFile are \"append\" and \"newline\"")
		}
	}
	file := SideFile{Path: path, User: user, Group: group, Mode: fs.FileMode(mode), Content: []byte(content)}
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

var errNoMap = errors.New("what scratch keeps there is not a map")

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
