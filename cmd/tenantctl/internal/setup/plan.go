// Package setup brings a Vault into the state that the platform wants: initialised
// and unsealed, with an engine, policies, logins, an audit device, an example tenant
// and the credentials of the services. Each step looks first, and changes only what
// differs, so that a second run changes nothing, and one that was cut off goes on.
package setup

import (
	"context"
	"errors"
	"fmt"
)

// Status says how something was found, which also is what is done about it.
type Status string

// The statuses of a step.
const (
	OK     Status = "ok"
	Create Status = "create"
	Change Status = "change"
	Note   Status = "note"  // not as one would wish, but nothing that setup can change
	Wrong  Status = "wrong" // as it must not be, and for a person to change
	Failed Status = "failed"
)

// Difference is a setting that is not as it should be.
type Difference struct {
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Step is one thing that was seen to.
type Step struct {
	Name        string       `json:"step"`
	Status      Status       `json:"status"`
	Differences []Difference `json:"differences,omitempty"`
	Detail      string       `json:"detail,omitempty"`
}

// Drifts tells whether a step is one of those that change something.
func (s *Step) Drifts() bool { return s.Status == Create || s.Status == Change }

// found is what a look gives.
type found struct {
	Status
	differences []Difference
	detail      string
}

func (f found) needs() bool { return f.Status == Create || f.Status == Change }

// differing is OK without differences.
func differing(all []Difference) found {
	if len(all) == 0 {
		return found{Status: OK}
	}
	return found{Status: Change, differences: all}
}

// task is a step before it is done. check writes nothing; apply makes check find
// nothing, or returns a [notice]. It is nil where check never asks for it.
type task struct {
	name  string
	check func(ctx context.Context) (found, error)
	apply func(ctx context.Context) error
}

// notice is why something that is missing is left at that.
type notice string

func (n notice) Error() string { return string(n) }

// perform does one task, and returns what became of it.
func (s *Setup) perform(ctx context.Context, t task) (Step, error) {
	step := Step{Name: t.name}
	is, err := t.check(ctx)
	step.Status, step.Differences, step.Detail = is.Status, is.differences, is.detail
	if err == nil && is.needs() && !s.Check {
		err = s.change(ctx, t)
	}
	var n notice
	if errors.As(err, &n) {
		step.Status, step.Detail, err = Note, string(n), nil
	}
	if err != nil {
		step.Status, step.Detail = Failed, err.Error()
	}
	return step, err
}

// change applies a task, and makes sure of it.
func (s *Setup) change(ctx context.Context, t task) error {
	if err := t.apply(ctx); err != nil {
		return err
	}
	is, err := t.check(ctx)
	if err != nil {
		return fmt.Errorf("after the change: %w", err)
	}
	if is.needs() {
		return fmt.Errorf("it is something else after the change: %v %s", is.differences, is.detail)
	}
	return nil
}
