// Vaultbinary prints the path of devvault, a real Vault, which it builds where it has
// changed: the scripts beside the examples make their image of Vault with it.
package main

import (
	"fmt"
	"os"

	"github.com/smarteros/deaddrop/compose/vaulttest"
)

func main() {
	path, err := vaulttest.Binary()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vaultbinary:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
