// A filter that asks for etcd.
package main

import (
	"unsafe"

	"message-flow/sdk/requestfilter"
)

func init() { requestfilter.Handle(onRequest) }

func main() {}

//go:wasmimport message-flow:plugin/etcd@0.1.0 transact
func transact(compared, comparisons, then, operations, otherwise, others uint32, outcome unsafe.Pointer)

func onRequest() (requestfilter.Verdict, error) {
	var outcome [4]uint64
	transact(0, 0, 0, 0, 0, 0, unsafe.Pointer(&outcome))
	return requestfilter.Forward(), nil
}
