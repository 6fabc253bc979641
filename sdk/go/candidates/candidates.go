//go:build wasip1

// Package candidates is whom a registrar may choose among: see wit/candidates.wit.
package candidates

import (
	"runtime"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

// Server is a server at which a service is served, as the registry knows it at the time of the call.
type Server struct {
	ID, URI  string
	Weight   uint32
	Healthy  bool
	InFlight uint32
	metadata abi.List
	kept     *abi.Kept
}

// Metadata is a value of what it was registered with, and whether there is one of that name.
func (server *Server) Metadata(key string) (string, bool) {
	for _, pair := range abi.Items[abi.Pair](server.metadata) {
		if pair.Key.String() == key {
			return pair.Value.String(), true
		}
	}
	return "", false
}

// Pair is a key of a server's metadata, and the value that is asked for.
type Pair struct{ Key, Value string }

// LeastLoaded is the id of the server with the least to do, of those whose metadata has all of these
// pairs (at most 8), and whether there is one.
func LeastLoaded(having ...Pair) (string, bool) {
	if len(having) > len(pairs) {
		panic("candidates.LeastLoaded takes at most 8 pairs")
	}
	abi.Ready()
	for at, pair := range having {
		pairs[at] = abi.Pair{Key: abi.Given(pair.Key), Value: abi.Given(pair.Value)}
	}
	leastLoaded(unsafe.Pointer(&pairs), uint32(len(having)), unsafe.Pointer(&option))
	runtime.KeepAlive(having)
	return option.String()
}

// Servers are the service's servers without unhealthy ones, in the order of their ids.
func Servers() []Server {
	abi.Ready()
	servers(unsafe.Pointer(&list))
	kept := abi.Keep()
	written := abi.Items[record](list)
	read := make([]Server, len(written))
	for at := range written {
		record := &written[at]
		read[at] = Server{
			ID:       record.id.String(),
			URI:      record.uri.String(),
			Weight:   record.weight,
			Healthy:  record.healthy,
			InFlight: record.inFlight,
			metadata: record.metadata,
			kept:     kept,
		}
	}
	return read
}

// As the host writes it.
type record struct {
	id, uri  abi.Text
	weight   uint32
	healthy  bool
	inFlight uint32
	metadata abi.List
}

var (
	pairs  [8]abi.Pair
	option abi.Option
	list   abi.List
)

//go:wasmimport message-flow:plugin/candidates@0.1.0 least-loaded
func leastLoaded(having unsafe.Pointer, count uint32, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/candidates@0.1.0 servers
func servers(result unsafe.Pointer)
