// Command trim prints the kilobytes of files that it has mapped and looked at, before and
// after it let go of them, and the size of its own file, which it reads both times.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/smarteros/deaddrop/agent/internal/footprint"
)

func main() {
	look()
	footprint.Trim()
	look()
}

func look() {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	fmt.Println(strings.Fields(rest)[0], len(program))
}
