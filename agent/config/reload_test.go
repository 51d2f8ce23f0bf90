package config

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dropWith is a drop whose 10th line is the first of the text.
func dropWith(text string) string {
	return login + "drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n.env\"\n" + text + "\n}\n"
}

const everyReload = `
  reload {
    pid_file    = "/run/nexa.pid"
    signal      = "RTMIN+1"
    expect_user = "nexa"
    on_start    = true
  }
  exec { command = ["first", "of", "two"] }
  reload {
    process      = "nexa"
    command_line = "--tenant demo"
    signal       = 10
    expect_user  = 101
  }
  reload {
    command_line = "only"
    signal       = "term"
  }
  reload {
    container   = "nexa"
    signal      = "HUP"
    docker_host = "tcp://docker:2375"
  }
  reload {
    container_label = "role=web"
    action          = "restart"
  }
  reload {
    compose_service = "nexa"
    compose_project = "platform"
    signal          = "HUP"
    timeout         = "5s"
  }
  reload { unit = "nginx" }
  reload {
    unit   = "nexa.socket"
    action = "restart"
    bus    = "user"
  }
  reload {
    command = ["reload", "--now"]
    timeout = "5s"
    env     = { B = "2", A = "m4rker" }
    dir     = "/srv"
    user    = "nexa"
  }
  reload { command = "echo $HOME" }
  reload {
    url         = "http://u:m4rker@127.0.0.1:8080/reload?key=m4rker"
    method      = "GET"
    retries     = 5
    expect      = [200, 204]
    header_file = "/run/secrets/header"
    ca_cert     = "/etc/ca.pem"
  }
  reload {
    url    = "https://localhost/"
    expect = 202
  }
  reload {
    exec   = true
    signal = "HUP"
  }
  reload {
    exec   = true
    action = "restart"
  }
  wait { min = "2s" }
`

func TestLoadUnderstandsEveryReload(t *testing.T) {
	folder(t)
	file := dropWith(everyReload) + "exec {\n  command = [\"serve\"]\n  reload_signal = \"USR1\"\n  kill_timeout = \"5s\"\n}\nsplay = \"30s\"\n"
	cfg, err := load(t, file)
	require.NoError(t, err)
	want := []Reload{
		{PIDFile{Path: "/run/nexa.pid", Signal: 35, ExpectUser: "nexa"}, true},
		{Command{Args: []string{"first", "of", "two"}, Timeout: 30 * time.Second}, true},
		{Target: Process{Name: "nexa", CommandLine: "--tenant demo", Signal: 10, ExpectUser: "101"}},
		{Target: Process{CommandLine: "only", Signal: 15}},
		{Target: Container{Name: "nexa", Signal: 1, Host: "tcp://docker:2375", Timeout: 10 * time.Second}},
		{Target: Container{Label: "role=web", Timeout: time.Minute}},
		{Target: Container{Service: "nexa", Project: "platform", Signal: 1, Timeout: 5 * time.Second}},
		{Target: Unit{Name: "nginx.service", Action: "reload-or-restart", Timeout: 90 * time.Second}},
		{Target: Unit{Name: "nexa.socket", Action: "restart", User: true, Timeout: 90 * time.Second}},
		{Target: Command{Args: []string{"reload", "--now"}, Timeout: 5 * time.Second, Env: []string{"A=m4rker", "B=2"}, Dir: "/srv", User: "nexa"}},
		{Target: Command{Args: []string{"sh", "-c", "echo $HOME"}, Timeout: 30 * time.Second}},
		{Target: HTTP{URL: "http://u:m4rker@127.0.0.1:8080/reload?key=m4rker", Method: "GET", Retries: 5, Expect: []int{200, 204},
			HeaderFile: "/run/secrets/header", CACert: "/etc/ca.pem", Timeout: 10 * time.Second}},
		{Target: HTTP{URL: "https://localhost/", Method: "POST", Retries: 2, Expect: []int{202}, Timeout: 10 * time.Second}},
		{Target: Child{Signal: 1}},
		{Target: Child{}},
	}
	assert.Equal(t, want, unplaced(cfg.Drops[0].Reloads))
	assert.Equal(t, Wait{2 * time.Second, 8 * time.Second}, cfg.Drops[0].Wait)
	assert.Equal(t, 30*time.Second, cfg.Splay)
	assert.Equal(t, Exec{Args: []string{"serve"}, StopSignal: 15, ReloadSignal: 10, Grace: 5 * time.Second, Restart: true}, cfg.Supervise.Exec)

	printed := cfg.String()
	assert.NotContains(t, printed, "m4rker")
	again, err := load(t, printed)
	require.NoError(t, err, printed)
	for i := range want { // What may be secret is not printed.
		switch a := want[i].Target.(type) {
		case Command:
			if a.Env != nil {
				a.Env = []string{"A=[redacted]", "B=[redacted]"}
			}
			want[i].Target = a
		case HTTP:
			if a.Method == "GET" {
				a.URL = "http://u:xxxxx@127.0.0.1:8080/reload?[redacted]"
			}
			want[i].Target = a
		}
	}
	assert.Equal(t, want, unplaced(again.Drops[0].Reloads))
	assert.Equal(t, cfg.Drops[0].Wait, again.Drops[0].Wait)
	assert.Equal(t, cfg.Splay, again.Splay)
}

func TestLoadNamesWhatIsWrongWithAReload(t *testing.T) {
	folder(t)
	for text, want := range map[string]string{
		"reload {}":                     `deaddrop.hcl:9:1: reload does not say whom to tell: write one of pid_file, process, command_line, container, container_label, compose_service, unit, command, url, exec`,
		"reload {\nsignal = \"HUP\"\n}": `deaddrop.hcl:9:1: reload does not say whom to tell`,
		"reload {\npid_flie = \"x\"\nsignal = \"HUP\"\n}":                  `deaddrop.hcl:10:1: reload has no setting "pid_flie"; did you mean "pid_file"?`,
		"reload {\npid_file = \"x\"\nsignal = \"HPU\"\n}":                  `deaddrop.hcl:11:10: there is no signal "HPU"; did you mean "SIGHUP"?`,
		"reload {\npid_file = \"x\"\nsignal = 0\n}":                        `deaddrop.hcl:11:10: there is no signal "0"`,
		"reload {\npid_file = \"x\"\n}":                                    `deaddrop.hcl:9:1: reload lacks a signal: write one such as signal = "HUP"`,
		"reload {\npid_file = \"\"\nsignal = \"HUP\"\n}":                   `deaddrop.hcl:10:12: pid_file must be a text that is not empty`,
		"reload {\npid_file = [\"a\"]\nsignal = \"HUP\"\n}":                `deaddrop.hcl:10:12: pid_file must be a text that is not empty`,
		"reload {\npid_file = \"x\"\nsignal = \"HUP\"\nunit = \"y\"\n}":    `deaddrop.hcl:12:1: pid_file and unit exclude each other: write a reload block for each`,
		"reload {\npid_file = \"x\"\nsignal = 1\nexpect_user = \"\"\n}":    `deaddrop.hcl:12:15: expect_user must be a text that is not empty`,
		"reload {\nunit = \"y\"\nexpect_user = \"x\"\n}":                   `deaddrop.hcl:11:1: expect_user has no effect on a reload by unit; it takes action, bus, timeout, on_start`,
		"reload {\npid_file = \"x\"\nsignal = 1\nexpect_usr = \"x\"\n}":    `deaddrop.hcl:12:1: reload has no setting "expect_usr"; did you mean "expect_user"?`,
		"reload {\nunit = \"y\"\nsignal = \"HUP\"\n}":                      `deaddrop.hcl:11:1: signal has no effect on a reload by unit; it takes action, bus, timeout, on_start`,
		"reload {\nunit = \"y\"\naction = \"relaod\"\n}":                   `deaddrop.hcl:11:10: action "relaod" is not known; use one of reload-or-restart, reload, restart; did you mean "reload"?`,
		"reload {\nunit = \"a b\"\n}":                                      `deaddrop.hcl:10:8: unit "a b" is not the name of a unit`,
		"reload {\ncontainer = \"y\"\n}":                                   `deaddrop.hcl:9:1: reload lacks a signal: write one such as signal = "HUP", or action = "restart"`,
		"reload {\ncontainer = \"y\"\nsignal = 1\naction = \"restart\"\n}": `deaddrop.hcl:11:1: signal and action = "restart" exclude each other`,
		"reload {\ncontainer = \"y\"\nsignal = 1\ndocker_host = \"x\"\n}":  `deaddrop.hcl:12:15: docker_host is not an address`,
		"reload {\nprocess = \"y\"\nsignal = 1\ncommand_line = \"(\"\n}":   `deaddrop.hcl:12:16: command_line is not a regular expression`,
		"reload {\ncommand = []\n}":                                        `deaddrop.hcl:10:11: command is empty; write the program and its arguments`,
		"reload {\ncommand = \" \"\n}":                                     `deaddrop.hcl:10:11: command is empty`,
		"reload {\ncommand = [\"a\"]\nenv = { \"a-b\" = \"c\" }\n}":        `deaddrop.hcl:11:7: env: "a-b" is not a variable`,
		"reload {\ncommand = [\"a\"]\nenv = 1\n}":                          `deaddrop.hcl:11:7: env is not a list of variables`,
		"reload {\nurl = \"m4rker\"\n}":                                    `deaddrop.hcl:10:7: url is not one such as`,
		"reload {\nurl = \"http://a/\"\nmethod = \"PUT\"\n}":               `deaddrop.hcl:11:10: method "PUT" is not known; use one of POST, GET`,
		"reload {\nurl = \"http://a/\"\nexpect = [99]\n}":                  `deaddrop.hcl:11:10: expect must be HTTP status codes`,
		"reload {\nurl = \"http://a/\"\nretries = 99\n}":                   `deaddrop.hcl:11:11: retries must be a number from 0 to 10`,
		"reload {\nurl = \"http://a/\"\ntimeout = \"soon\"\n}":             `deaddrop.hcl:11:11: "soon" is not a duration`,
		"reload {\nurl = \"http://a/\"\non_start = \"maybe\"\n}":           `deaddrop.hcl:11:12: on_start must be true or false`,
		"reload {\nexec = true\nsignal = 1\n}":                             `deaddrop.hcl:10:1: exec = true stands for the command of the exec block, and there is none`,
		"wait {\nmax = \"1s\"\n}":                                          `deaddrop.hcl:9:1: wait lacks a min`,
		"wait {\nmin = \"2s\"\nmax = \"1s\"\n}":                            `deaddrop.hcl:11:7: max is shorter than min`,
	} {
		_, err := load(t, dropWith(text))
		require.ErrorContains(t, err, want, text)
		assert.NotContains(t, err.Error(), "m4rker")
	}
}

func TestWaitIsTakenFromTheDropTheSetOrTheTop(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+`
wait {
  min = "1s"
  max = "9s"
}
drop "a" {
  secret      = "secret/a"
  destination = "a.env"
}
drop "b" {
  secret      = "secret/a"
  destination = "b.env"
  wait { min = 0 }
}
set "s" {
  destination = "s"
  wait { min = "5s" }
  drop "c" {
    secret      = "secret/a"
    destination = "c.env"
  }
}
`)
	require.NoError(t, err)
	var waits []Wait
	for _, d := range cfg.Drops {
		waits = append(waits, d.Wait)
	}
	assert.Equal(t, []Wait{{time.Second, 9 * time.Second}, {}, {5 * time.Second, 20 * time.Second}}, waits)
}

// unplaced are reloads without their places in the configuration.
func unplaced(reloads []Reload) []Reload {
	all := slices.Clone(reloads)
	for i := range all {
		if c, isCommand := all[i].Target.(Command); isCommand {
			c.Place = ""
			all[i].Target = c
		}
	}
	return all
}

func TestLoad_TellsCommandsApartByTheirPlace(t *testing.T) {
	folder(t)
	cfg, err := load(t, login+"drop \"n\" {\n  secret = \"secret/a\"\n  destination = \"n.env\"\n  reload { command = \"true\" }\n  reload { command = \"false\" }\n}")
	require.NoError(t, err)
	reloads := cfg.Drops[0].Reloads
	assert.Equal(t, "command sh (deaddrop.hcl:9)", fmt.Sprint(reloads[0].Target))
	assert.Equal(t, "command sh (deaddrop.hcl:10)", fmt.Sprint(reloads[1].Target))
}
