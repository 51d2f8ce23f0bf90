package reload

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/smarteros/deaddrop/agent/config"
)

func TestNew_ReturnsTheActionForEachTarget(t *testing.T) {
	for _, tc := range []struct {
		target config.Target
		want   Action
		name   string
	}{
		{config.PIDFile{Path: "/run/x.pid", Signal: syscall.SIGHUP, ExpectUser: "u"}, PIDFile{Path: "/run/x.pid", Signal: syscall.SIGHUP, ExpectUser: "u"}, "SIGHUP to the process in /run/x.pid"},
		{config.Process{Name: "nexa", CommandLine: "--demo", Signal: 35}, Process{Name: "nexa", CommandLine: "--demo", Signal: 35}, `SIGRTMIN+1 to the process "nexa --demo"`},
		{config.Container{Label: "role=web", Timeout: time.Second}, Container{Label: "role=web", Timeout: time.Second}, "restart of containers with the label role=web"},
		{config.Container{Service: "nexa", Project: "p", Signal: 1}, Container{Service: "nexa", Project: "p", Signal: 1}, "SIGHUP to compose service nexa of project p"},
		{config.Unit{Name: "nginx.service", Action: "reload"}, Unit{Name: "nginx.service", Action: "reload"}, "reload of unit nginx.service"},
		{config.Command{Args: []string{"nginx", "m4rker"}, Place: "a.hcl:3"}, Command{Args: []string{"nginx", "m4rker"}, Place: "a.hcl:3"}, "command nginx (a.hcl:3)"},
		{config.HTTP{URL: "http://u:m4rker@h/x?k=m4rker#m4rker", Method: "POST"}, HTTP{URL: "http://u:m4rker@h/x?k=m4rker#m4rker", Method: "POST"}, "POST http://u:xxxxx@h/x"},
	} {
		action, ok := New(tc.target, nil)
		assert.True(t, ok, tc.name)
		assert.Equal(t, tc.want, action)
		assert.Equal(t, []string{tc.name, tc.name}, []string{action.String(), tc.target.String()})
	}
}

func TestNew_AsksTheSupervisedCommandForItsAction(t *testing.T) {
	for signal, name := range map[syscall.Signal]string{0: "restart of the command", syscall.SIGHUP: "SIGHUP to the command"} {
		child := config.Child{Signal: signal}
		assert.Equal(t, name, child.String())
		action, ok := New(child, func(c config.Child) Action { return newFake(c.String(), 0) })
		assert.True(t, ok)
		assert.Equal(t, name, action.String())
		_, ok = New(child, nil)
		assert.False(t, ok, "no command is supervised")
	}
}
