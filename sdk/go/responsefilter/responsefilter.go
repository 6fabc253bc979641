//go:build wasip1

// Package responsefilter makes a plugin a response filter, which sees a response before it is sent to
// the client: see wit/response-filter.wit.
package responsefilter

import (
	"errors"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

var (
	handler = func() error { return errors.New("main.init did not call responsefilter.Handle") }
	answer  abi.Answer
)

// Handle names the function that filters; to be called in init.
func Handle(onResponse func() error) { handler = onResponse }

//go:wasmexport message-flow:plugin/response-filter@0.1.0#on-response
func onResponse() unsafe.Pointer {
	if err := handler(); err != nil {
		return answer.Fail(err)
	}
	return answer.Give(0, "")
}
