//go:build wasip1

// Package event is the event at hand: see wit/event.wit.
package event

import (
	"unsafe"

	"message-flow/sdk/internal/abi"
)

var (
	text   abi.Text
	option abi.Option
)

// Topic is the topic or queue that it is published to.
func Topic() string {
	abi.Ready()
	topic(unsafe.Pointer(&text))
	return text.String()
}

// Payload is what was published.
func Payload() []byte {
	abi.Ready()
	payload(unsafe.Pointer(&text))
	return text.Bytes()
}

// Attribute is an attribute, such as content-type, and whether there is one of that name.
func Attribute(name string) (string, bool) {
	abi.Ready()
	attribute(name, unsafe.Pointer(&option))
	return option.String()
}

// Client is who publishes it.
func Client() string {
	abi.Ready()
	client(unsafe.Pointer(&text))
	return text.String()
}

// SetPayload publishes these bytes in place of the payload.
func SetPayload(payload []byte) {
	setPayload(unsafe.String(unsafe.SliceData(payload), len(payload)))
}

// SetAttribute sets an attribute, or replaces it.
func SetAttribute(name, value string) { setAttribute(name, value) }

//go:wasmimport message-flow:plugin/event@0.1.0 topic
func topic(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/event@0.1.0 payload
func payload(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/event@0.1.0 attribute
func attribute(name string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/event@0.1.0 client
func client(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/event@0.1.0 set-payload
func setPayload(payload string)

//go:wasmimport message-flow:plugin/event@0.1.0 set-attribute
func setAttribute(name, value string)
