//go:build !linux

package drop

import (
	"errors"
	"os"
)

// isMount is not known here.
func (d *folder) isMount(string) bool { return false }

// onDisk is not known here.
func onDisk(string) bool { return false }

// memory is a file that is in no folder.
func memory([]byte) (*os.File, error) {
	return nil, errors.New("no file can be made in its folder, and none in memory on this system")
}
