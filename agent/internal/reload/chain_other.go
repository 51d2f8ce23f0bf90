//go:build !linux

package reload

import (
	"io/fs"
	"os"

	"github.com/smarteros/deaddrop/render/safefile"
)

// openChain opens a regular file for reading. Links that lead to it are only looked at on
// Linux, where alone the agent can see processes.
func openChain(path string) (*os.File, []fs.FileInfo, error) {
	file, info, err := safefile.Open(path)
	return file, []fs.FileInfo{info}, err
}
