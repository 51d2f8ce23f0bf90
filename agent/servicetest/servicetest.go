// Package servicetest gives tests a service whose answers to signals can be relied on. It
// is the test binary itself, started again. A shell with traps is no such service: it
// cannot trap a signal that is ignored when it starts, as SIGHUP is under nohup, and it
// runs a trap only after the program in its foreground has ended.
package servicetest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Service is a process that writes lines into a file. In a line, $NAME is a variable of
// its environment, and ${file:PATH} is the content of a file.
type Service struct {
	// File is the file that lines are appended to.
	File string
	// Start is the first line. It is written when the service is ready for signals.
	Start string
	// On has the line for a signal, by its name, such as "HUP". An empty line is not
	// written.
	On map[string]string
	// Exit has the exit code for each signal that ends the service, after its line.
	Exit map[string]int
	// Ignore are signals that the service ignores, and its child too.
	Ignore []string
	// HasChild starts a child that sleeps. $CHILD is its process id.
	HasChild bool
	// Until is a file whose appearance ends the service, with UntilCode.
	Until     string
	UntilCode int
}

// word is the first argument of a test binary that is to be the service.
const word = "servicetest"

// Args returns the program and the arguments that start the service. The test binary
// must call [Main].
func (s Service) Args() []string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // It has nothing that JSON lacks.
	}
	program, err := os.Executable()
	if err != nil {
		panic(err) // Linux always knows it.
	}
	return []string{program, word, string(text)}
}

// Main is the service, and does not return, where the arguments are those of
// [Service.Args]. It belongs at the beginning of TestMain. Tests that ignore signals, as
// under nohup or in the background of a script, start anew without: programs that they
// start would ignore them, too.
func Main() {
	if len(os.Args) != 3 || os.Args[1] != word {
		if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "-test.") {
			heedSignals()
		}
		return
	}
	var s Service
	if err := json.Unmarshal([]byte(os.Args[2]), &s); err != nil {
		fail(err)
	}
	s.run()
}

func heedSignals() {
	ignored := []os.Signal{syscall.SIGHUP, syscall.SIGINT}
	ignored = slices.DeleteFunc(ignored, func(sig os.Signal) bool { return !signal.Ignored(sig) })
	if len(ignored) == 0 {
		return
	}
	signal.Notify(make(chan os.Signal, 1), ignored...) // What has a handler has the default after exec.
	program, err := os.Executable()
	if err != nil {
		fail(err)
	}
	fail(syscall.Exec(program, os.Args, os.Environ()))
}

func (s Service) run() {
	signals := make(chan os.Signal, 16)
	for name := range s.On {
		signal.Notify(signals, number(name))
	}
	for name := range s.Exit {
		signal.Notify(signals, number(name))
	}
	for _, name := range s.Ignore {
		signal.Ignore(number(name))
	}
	if s.HasChild {
		child := exec.Command("sleep", "300")
		if err := child.Start(); err != nil {
			fail(err)
		}
		_ = os.Setenv("CHILD", strconv.Itoa(child.Process.Pid))
	}
	s.write(s.Start)
	for {
		select {
		case sig := <-signals:
			name := strings.TrimPrefix(unix.SignalName(sig.(syscall.Signal)), "SIG")
			s.write(s.On[name])
			if code, ends := s.Exit[name]; ends {
				syscall.Exit(code) // os.Exit would sleep for a second under -race.
			}
		case <-time.After(20 * time.Millisecond):
			if _, err := os.Stat(s.Until); s.Until != "" && err == nil {
				syscall.Exit(s.UntilCode)
			}
		}
	}
}

func (s Service) write(line string) {
	if line == "" {
		return
	}
	file, err := os.OpenFile(s.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fail(err)
	}
	text := os.Expand(line, func(name string) string {
		if path, is := strings.CutPrefix(name, "file:"); is {
			content, err := os.ReadFile(path)
			if err != nil {
				fail(err)
			}
			return string(content)
		}
		return os.Getenv(name)
	})
	if _, err := file.WriteString(text + "\n"); err != nil {
		fail(err)
	}
	if err := file.Close(); err != nil {
		fail(err)
	}
}

func number(name string) syscall.Signal {
	sig := unix.SignalNum("SIG" + name)
	if sig == 0 {
		fail(fmt.Errorf("there is no signal %q", name))
	}
	return sig
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "servicetest:", err)
	syscall.Exit(99)
}
