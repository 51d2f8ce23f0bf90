package drop

import (
	"io/fs"
)

// This file is for those who look at a destination and write nothing.

// IsMount tells whether a file is mounted by itself, as a container's runtime does
// with a single file: such a one cannot be replaced. It is false where that cannot
// be told.
func IsMount(path string) bool {
	var opened folders
	defer opened.close()
	folder, base := split(path)
	dir, err := opened.open(location{path: folder}, false)
	return err == nil && dir.isMount(base)
}

// CheckInSet is like [Check], for a file in the folder of a set, where links are
// in order.
func CheckInSet(path string) error {
	var opened folders
	defer opened.close()
	folder, base := split(path)
	dir, err := opened.open(location{path: folder}, false)
	if err != nil {
		return nil // Missing or unreadable: writing will tell.
	}
	return dir.replaceable(base)
}

// OwnerOf gives the ids of a file's owner, -1 where they are not known.
func OwnerOf(info fs.FileInfo) (uid, gid int) { return ownerOf(info) }
