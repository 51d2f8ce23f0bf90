// Package status says how the agent is: to people, to monitoring, and to the
// service manager. It shows no secret.
package status

import (
	"fmt"
	"time"

	"github.com/smarteros/deaddrop/agent/plural"
)

// Report is all that the agent knows of itself. It is the JSON of /status.
type Report struct {
	Version string    `json:"version,omitempty"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	At      time.Time `json:"at"`
	// Ready says that every drop is current, and why not where one is not.
	Summary
	Session Session `json:"session"`
	// CommandAwaits are the drops and variables that the command of exec is not started
	// without, where it was not started yet.
	CommandAwaits []string  `json:"command_awaits,omitempty"`
	Config        Config    `json:"config"`
	Secrets       []Secret  `json:"secrets"`
	Drops         []Drop    `json:"drops"`
	ForEach       []ForEach `json:"for_each,omitempty"`
	Reloads       []Reload  `json:"reloads"`
}

// Summary is a report in a line.
type Summary struct {
	// Ready says that every drop is as it should be.
	Ready bool `json:"ready"`
	// Text says so in words, such as "3 of 4 drops are current".
	Text string `json:"summary"`
	// Served says that every drop has a file, be it of an earlier run. It is said
	// besides, and no part of the report.
	Served bool `json:"-"`
}

// Session is the connection to Vault.
type Session struct {
	Address  string `json:"address"`
	LoggedIn bool   `json:"logged_in"`
	// TokenSince is the login, TokenEnds zero for a token that does not end, or whose
	// end is not known.
	TokenSince time.Time `json:"token_since,omitzero"`
	TokenEnds  time.Time `json:"token_ends,omitzero"`
	// Error is why the last login has failed.
	Error string `json:"error,omitempty"`
}

// Config is the configuration in force.
type Config struct {
	// Files are those that it was read from; none for one of flags alone.
	Files    []string  `json:"files,omitempty"`
	Loaded   time.Time `json:"loaded,omitzero"`
	Warnings []string  `json:"warnings,omitempty"`
	// Refused is when a newer one was last refused, for Error; both are zero where
	// the newest is in force.
	Refused time.Time `json:"refused,omitzero"`
	Error   string    `json:"error,omitempty"`
}

// Secret is one request to Vault.
type Secret struct {
	Path string `json:"path"`
	// Version is the KV v2 version, 0 for what has none.
	Version int `json:"version,omitempty"`
	// Created is when Vault was given that version, in Vault's words.
	Created string `json:"created,omitempty"`
	// Checked is when Vault last answered, Next when it is asked again at the latest:
	// zero for never.
	Checked time.Time `json:"checked,omitzero"`
	// Attempted is when Vault was last asked, whatever came of it.
	Attempted time.Time `json:"attempted,omitzero"`
	Next      time.Time `json:"next,omitzero"`
	// Ends is when the lease or the certificate does; zero for what has no end.
	Ends time.Time `json:"ends,omitzero"`
	// Failing is since when it cannot be read.
	Failing time.Time `json:"failing,omitzero"`
	// Error is why it cannot be read now.
	Error string `json:"error,omitempty"`
}

// Drop is a file, or a variable of the supervised command.
type Drop struct {
	Name string `json:"name"`
	// Destination is "" for a variable.
	Destination string `json:"destination,omitempty"`
	// Tenant is the key that a for_each block has made it for.
	Tenant string `json:"tenant,omitempty"`
	State  State  `json:"state"`
	// Since is when it came to be so; zero where that is not known.
	Since time.Time `json:"since,omitzero"`
	// Written is when its file was last written by this agent; zero where it has not
	// been.
	Written time.Time `json:"written,omitzero"`
	// Reloads are whom it tells, as the reloads are named.
	Reloads []string `json:"reloads,omitempty"`
	Error   string   `json:"error,omitempty"`
	// Block is the for_each block that it comes from, else "".
	Block string `json:"-"`
}

// State is how a drop is.
type State string

// The states of a drop.
const (
	Current  State = "current"
	Waiting  State = "waiting" // for a secret that was not read yet
	Stale    State = "stale"   // an older content stays
	Failed   State = "failed"  // there is no content of this run
	Removed  State = "removed" // as the secret is gone
	Absent   State = "absent"  // its tenant has no such secret
	Departed State = "its tenant is gone"
)

// IsGood tells whether nothing has to be done about the drop.
func (s State) IsGood() bool {
	return s == Current || s == Absent || s == Departed
}

// ForEach is a block that stands for one drop per tenant.
type ForEach struct {
	Name string `json:"name"`
	// Folder is the one in Vault that is listed, or "".
	Folder  string            `json:"folder,omitempty"`
	Tenants int               `json:"tenants"`
	Error   string            `json:"error,omitempty"`
	Failed  map[string]string `json:"failed,omitempty"` // tenants without drops, and why
}

// Reload is one way to tell a service.
type Reload struct {
	By    string      `json:"by"`
	State ReloadState `json:"state"`
	// Since is when it came to be so.
	Since time.Time `json:"since,omitzero"`
	// Next is when it is tried next, where it waits for that.
	Next  time.Time `json:"next,omitzero"`
	Tries int       `json:"tries,omitempty"` // that failed, one after the other
	Error string    `json:"error,omitempty"`
}

// ReloadState is how a reload is.
type ReloadState string

// The states of a reload.
const (
	NotReady      ReloadState = "not ready" // it cannot work, as things are
	ReloadFailed  ReloadState = "failed"
	ReloadWaiting ReloadState = "waiting"
	NotNeeded     ReloadState = "not needed yet"
	Done          ReloadState = "done"
)

// Summarize sums drops up, of which so many are good. Another fault stands for
// what else keeps the agent from being ready, or is "".
func Summarize(good, all int, fault string) Summary {
	s := Summary{Ready: good == all && fault == ""}
	switch {
	case all == 0:
		s.Text = "there are no drops"
	case all == 1 && good == 1:
		s.Text = "the drop is current"
	case all == 1:
		s.Text = "the drop is not current"
	case good == all:
		s.Text = fmt.Sprintf("all %d drops are current", all)
	default:
		s.Text = fmt.Sprintf("%d of %d drops %s current", good, all, plural.Be(good))
	}
	if fault != "" {
		s.Text += "; " + fault
	}
	return s
}
