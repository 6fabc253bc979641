//go:build wasip1

// Package response is the response at hand: see wit/response.wit.
package response

import (
	"unsafe"

	"message-flow/sdk/internal/abi"
)

var (
	option abi.Option
	list   abi.List
)

// Status is the HTTP status.
func Status() uint16 { return uint16(status()) }

// Header is the first value of a header, and whether there is one.
func Header(name string) (string, bool) {
	abi.Ready()
	header(name, unsafe.Pointer(&option))
	return option.String()
}

// Headers are all values of a header, in the order received.
func Headers(name string) []string {
	abi.Ready()
	headers(name, unsafe.Pointer(&list))
	return list.Strings()
}

// HeaderNames are the names of all headers, in lower case, each once.
func HeaderNames() []string {
	abi.Ready()
	headerNames(unsafe.Pointer(&list))
	return list.Strings()
}

// SetStatus changes the status.
func SetStatus(status uint16) { setStatus(uint32(status)) }

// SetHeader replaces every value of a header by this one, or adds it.
func SetHeader(name, value string) { setHeader(name, value) }

// AddHeader adds a value to a header.
func AddHeader(name, value string) { addHeader(name, value) }

// RemoveHeader removes every value of a header.
func RemoveHeader(name string) { removeHeader(name) }

//go:wasmimport message-flow:plugin/response@0.1.0 status
func status() uint32

//go:wasmimport message-flow:plugin/response@0.1.0 header
func header(name string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/response@0.1.0 headers
func headers(name string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/response@0.1.0 header-names
func headerNames(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/response@0.1.0 set-status
func setStatus(status uint32)

//go:wasmimport message-flow:plugin/response@0.1.0 set-header
func setHeader(name, value string)

//go:wasmimport message-flow:plugin/response@0.1.0 add-header
func addHeader(name, value string)

//go:wasmimport message-flow:plugin/response@0.1.0 remove-header
func removeHeader(name string)
