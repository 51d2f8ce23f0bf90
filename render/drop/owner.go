package drop

import (
	"fmt"
	"os/user"
	"strconv"
)

// UserID is the id of a user: a number as it is, or that of a name.
func UserID(name string) (int, error) {
	return idOf("user", name, func() (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

// GroupID is the id of a group: a number as it is, or that of a name.
func GroupID(name string) (int, error) {
	return idOf("group", name, func() (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

func idOf(what, name string, lookup func() (string, error)) (int, error) {
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	text, err := lookup()
	if err != nil {
		return 0, fmt.Errorf("there is no %s %q on this machine; write its number, if it is known elsewhere", what, name)
	}
	id, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s %q has no number", what, name)
	}
	return id, nil
}
