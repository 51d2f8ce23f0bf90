package reload

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// PanicError is the failure of an action that has panicked. It counts as any other failure,
// since a defect in one way to notify a service must not keep all other files from being
// current: a reload survives a restart of the agent, which would end in the same panic.
//
// It does not hold the value that the action has panicked with, which may contain a secret.
type PanicError struct {
	// Reason is the text of a runtime error, or the type of any other value.
	Reason string
	// Stack is that of the goroutine that has panicked.
	Stack string
}

func (e *PanicError) Error() string { return "panic: " + e.Reason }

// recovered calls a function and turns a panic into a [*PanicError].
func recovered(call func() error) (err error) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		reason := fmt.Sprintf("value of type %T", value)
		if fault, isFault := value.(runtime.Error); isFault {
			reason = fault.Error()
		}
		err = &PanicError{Reason: reason, Stack: string(debug.Stack())}
	}()
	return call()
}
