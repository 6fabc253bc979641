//go:build wasip1

// Package request is the request at hand: see wit/request.wit.
package request

import (
	"unsafe"

	"message-flow/sdk/internal/abi"
)

var (
	text   abi.Text
	option abi.Option
	list   abi.List
	named  struct {
		name    abi.Text
		version abi.Option
	}
)

// Method is the method, such as GET.
func Method() string {
	abi.Ready()
	method(unsafe.Pointer(&text))
	return text.String()
}

// Path is the path that the server will see, without the query.
func Path() string {
	abi.Ready()
	path(unsafe.Pointer(&text))
	return text.String()
}

// Query is what follows the first question mark.
func Query() (string, bool) {
	abi.Ready()
	query(unsafe.Pointer(&option))
	return option.String()
}

// Authority is the host and port that the client asked for.
func Authority() string {
	abi.Ready()
	authority(unsafe.Pointer(&text))
	return text.String()
}

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

// Client is who sends the message.
func Client() string {
	abi.Ready()
	client(unsafe.Pointer(&text))
	return text.String()
}

// Peer is the network address of the connection.
func Peer() string {
	abi.Ready()
	peer(unsafe.Pointer(&text))
	return text.String()
}

// Service is the service that the message is for, and its version if it has one.
func Service() (name, version string) {
	abi.Ready()
	service(unsafe.Pointer(&named))
	version, _ = named.version.String()
	return named.name.String(), version
}

// Server is the id of the server that the message was routed to; none while a registrar is asked.
func Server() (string, bool) {
	abi.Ready()
	server(unsafe.Pointer(&option))
	return option.String()
}

// SetHeader replaces every value of a header by this one, or adds it.
func SetHeader(name, value string) { setHeader(name, value) }

// AddHeader adds a value to a header.
func AddHeader(name, value string) { addHeader(name, value) }

// RemoveHeader removes every value of a header.
func RemoveHeader(name string) { removeHeader(name) }

// SetPath replaces path and query.
func SetPath(pathAndQuery string) { setPath(pathAndQuery) }

//go:wasmimport message-flow:plugin/request@0.1.0 method
func method(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 path
func path(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 query
func query(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 authority
func authority(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 header
func header(name string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 headers
func headers(name string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 header-names
func headerNames(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 client
func client(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 peer
func peer(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 service
func service(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 server
func server(result unsafe.Pointer)

//go:wasmimport message-flow:plugin/request@0.1.0 set-header
func setHeader(name, value string)

//go:wasmimport message-flow:plugin/request@0.1.0 add-header
func addHeader(name, value string)

//go:wasmimport message-flow:plugin/request@0.1.0 remove-header
func removeHeader(name string)

//go:wasmimport message-flow:plugin/request@0.1.0 set-path
func setPath(pathAndQuery string)
