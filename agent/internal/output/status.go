package output

import (
	"errors"
	"time"

	"github.com/smarteros/deaddrop/agent/watch"
)

// Status is how an output is.
type Status int

// The statuses of an output.
const (
	// Waiting is an output that has never been rendered, or that needs a secret which was
	// not read yet.
	Waiting Status = iota
	// Current is an output that has the content that it should have.
	Current
	// Stale is an output with older content: its last attempt has failed, or its secret
	// cannot be read now.
	Stale
	// Failed is an output without content of this run.
	Failed
	// Removed is a file that was removed as its secret is missing.
	Removed
	// Absent is the file of a tenant that has no such secret, and never had.
	Absent
	// Departed is the file of a tenant that is no longer listed.
	Departed
)

var statusNames = [...]string{"waiting", "current", "stale", "failed", "removed", "absent", "departed"}

func (s Status) String() string { return statusNames[s] }

// set is the one place that changes the status. reason says why the output is not current.
func (o *Output) set(status Status, reason error) {
	if status != o.status || (reason == nil) != (o.reason == nil) {
		o.since = time.Now()
	}
	o.status, o.reason = status, reason
}

// Status returns the status of the output.
func (o *Output) Status() Status { return o.status }

// Reason is why the output is not current; nil if it is.
func (o *Output) Reason() error { return o.reason }

// Since is since when the output has its status; zero if that is not known.
func (o *Output) Since() time.Time { return o.since }

// Err returns why the last attempt has failed; nil if it has not. That a secret cannot be
// read whose last content is known is no failure.
func (o *Output) Err() error {
	var outdated *outdatedError
	if errors.As(o.reason, &outdated) {
		return nil
	}
	return o.reason
}

// HasFile reports whether there is a file, of this run or an earlier one.
func (o *Output) HasFile() bool { return o.Variable == "" && o.HasContent() }

// HasContent reports whether there is a file or a variable with content, of this run or an
// earlier one.
func (o *Output) HasContent() bool {
	if o.content == nil {
		return o.foundFile
	}
	return !o.content.IsRemoved
}

// IsResolved reports whether this run has decided what is in the file: what an earlier run
// has left there is no longer in it.
func (o *Output) IsResolved() bool {
	return o.status != Departed && (o.content != nil || o.status == Absent)
}

// unreadError is the failure of an output whose secret cannot be read. It is logged where
// the secret is read, not again for each output.
type unreadError struct{ error }

func (e *unreadError) Unwrap() error { return e.error }

// outdatedError says that the content is the newest that is known, but that a secret of it
// cannot be read now.
type outdatedError struct{ error }

func (e *outdatedError) Unwrap() error { return e.error }

// IsMissing reports whether an error says that Vault has no such secret.
func IsMissing(err error) bool { return errors.Is(err, watch.ErrMissing) }

// TamperError says that another program has changed a file, which stays so: see
// [config.WarnOnly].
type TamperError struct {
	// Difference is what has changed, such as "removed" or "permissions".
	Difference string
}

func (e *TamperError) Error() string {
	return "another program has changed the file: " + e.Difference
}
