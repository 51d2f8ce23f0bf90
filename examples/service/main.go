// Command service is a small service as deaddrop's users have them: it takes
// its settings from a .env file, and reads that again on SIGHUP.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/joho/godotenv"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: service FILE.env FILE.pid")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

func run(envFile, pidFile string) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // before anyone can know our process id
	if err := show("started", envFile); err != nil {
		return err
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}
	for range hup {
		if err := show("reloaded", envFile); err != nil {
			return err
		}
	}
	return nil
}

// show prints the model, which is no secret, and only the end of the key.
func show(what, envFile string) error {
	env, err := godotenv.Read(envFile)
	if err != nil {
		return err
	}
	key := env["API_KEY"]
	_, err = fmt.Printf("service %s: MODEL=%s API_KEY=…%s\n", what, env["MODEL"], key[max(0, len(key)-4):])
	return err
}
