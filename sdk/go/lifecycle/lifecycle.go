//go:build wasip1

// Package lifecycle lets a plugin check its configuration before it serves: see wit/lifecycle.wit.
package lifecycle

import (
	"errors"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

var (
	handler = func() error { return errors.New("main.init did not call lifecycle.Handle") }
	answer  abi.Answer
)

// Handle names the function that is called once on a new build; to be called in init.
func Handle(start func() error) { handler = start }

//go:wasmexport message-flow:plugin/lifecycle@0.1.0#start
func start() unsafe.Pointer {
	if err := handler(); err != nil {
		return answer.Fail(err)
	}
	return answer.Give(0, "")
}
