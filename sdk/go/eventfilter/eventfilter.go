//go:build wasip1

// Package eventfilter makes a plugin an event filter, which sees an event before it is stored: see
// wit/event-filter.wit.
package eventfilter

import (
	"errors"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

// Verdict is an event filter's answer.
type Verdict struct {
	tag  uint32
	text string
}

// Accept stores and delivers the event.
func Accept() Verdict { return Verdict{tag: 0} }

// Drop acknowledges it to its publisher and forgets it.
func Drop() Verdict { return Verdict{tag: 1} }

// Redirect publishes it to this topic instead.
func Redirect(topic string) Verdict { return Verdict{2, topic} }

// Reject refuses it; the publisher gets the reason.
func Reject(reason string) Verdict { return Verdict{3, reason} }

var (
	handler = func() (Verdict, error) { return Accept(), errors.New("main.init did not call eventfilter.Handle") }
	answer  abi.Answer
)

// Handle names the function that decides; to be called in init.
func Handle(onEvent func() (Verdict, error)) { handler = onEvent }

//go:wasmexport message-flow:plugin/event-filter@0.1.0#on-event
func onEvent() unsafe.Pointer {
	verdict, err := handler()
	if err != nil {
		return answer.Fail(err)
	}
	return answer.Give(verdict.tag, verdict.text)
}
