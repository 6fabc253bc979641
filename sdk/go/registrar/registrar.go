//go:build wasip1

// Package registrar makes a plugin a registrar, which is asked which server a client's messages go
// to: see wit/registrar.wit.
package registrar

import (
	"errors"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

// Decision is a registrar's answer.
type Decision struct {
	tag    uint32
	text   string
	status uint16
}

// Server sends the client to a server, by its id or an absolute URI.
func Server(id string) Decision { return Decision{tag: 0, text: id} }

// Pass leaves it to the router to pick from the server list.
func Pass() Decision { return Decision{tag: 1} }

// Reject gives the client this answer.
func Reject(status uint16, reason string) Decision { return Decision{2, reason, status} }

var (
	handler = func() (Decision, error) { return Pass(), errors.New("main.init did not call registrar.Handle") }
	answer  abi.Answer
)

// Handle names the function that decides; to be called in init.
func Handle(resolve func() (Decision, error)) { handler = resolve }

//go:wasmexport message-flow:plugin/registrar@0.1.0#resolve
func resolve() unsafe.Pointer {
	decision, err := handler()
	switch {
	case err != nil:
		return answer.Fail(err)
	case decision.tag == 2:
		return answer.GiveRejection(decision.tag, decision.status, decision.text)
	default:
		return answer.Give(decision.tag, decision.text)
	}
}
