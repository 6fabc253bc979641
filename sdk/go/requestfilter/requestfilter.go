//go:build wasip1

// Package requestfilter makes a plugin a request filter, which sees a request before it is sent on:
// see wit/request-filter.wit.
package requestfilter

import (
	"errors"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

// Verdict is a request filter's answer.
type Verdict struct {
	tag    uint32
	text   string
	status uint16
}

// Forward sends the request on.
func Forward() Verdict { return Verdict{tag: 0} }

// Respond answers it.
func Respond(status uint16, reason string) Verdict { return Verdict{1, reason, status} }

var (
	handler = func() (Verdict, error) { return Forward(), errors.New("main.init did not call requestfilter.Handle") }
	answer  abi.Answer
)

// Handle names the function that decides; to be called in init.
func Handle(onRequest func() (Verdict, error)) { handler = onRequest }

//go:wasmexport message-flow:plugin/request-filter@0.1.0#on-request
func onRequest() unsafe.Pointer {
	verdict, err := handler()
	switch {
	case err != nil:
		return answer.Fail(err)
	case verdict.tag == 1:
		return answer.GiveRejection(verdict.tag, verdict.status, verdict.text)
	default:
		return answer.Give(verdict.tag, verdict.text)
	}
}
