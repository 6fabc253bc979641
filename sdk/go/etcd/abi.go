//go:build wasip1

package etcd

import (
	"unsafe"

	"message-flow/sdk/internal/abi"
)

// Everything as the host reads and writes it.
type (
	comparison struct {
		tag      uint64
		key      abi.Text
		end      abi.Option
		revision uint64
	}

	operation struct {
		tag    uint32
		key    abi.Text
		value  abi.Text
		leased uint32
	}

	keyValue struct {
		key, value        abi.Text
		modified, version uint64
	}

	maybeKeyValue struct {
		some  uint64
		entry keyValue
	}

	event struct {
		key               abi.Text
		value             abi.Option
		revision, version uint64
	}

	transacted struct {
		succeeded uint32
		found     abi.List
		revision  uint64
	}

	batch struct {
		events   abi.List
		revision uint64
	}

	// A page, or what is as long.
	answer struct {
		failed   uint64
		list     abi.List
		flag     uint64
		revision uint64
	}
)

var result answer

func (answer *answer) err() error {
	if answer.failed&0xff == 0 {
		return nil
	}
	failed := Error{Cause: Cause(*(*uint8)(unsafe.Pointer(&answer.list)))}
	detail := unsafe.Pointer(&answer.flag)
	if failed.Cause == Compacted {
		failed.Revision = *(*uint64)(detail)
	} else {
		failed.text = (*abi.Text)(detail).String()
	}
	return failed
}

func (entry *keyValue) read() KeyValue {
	return KeyValue{entry.key.String(), entry.value.Bytes(), entry.modified, entry.version}
}

func written(operations []Operation) []operation {
	all := make([]operation, len(operations))
	for at := range operations {
		all[at] = operations[at].written
	}
	return all
}

//go:wasmimport message-flow:plugin/etcd@0.1.0 get
func list(start string, ends bool, end string, limit uint32, earlier bool, at uint64, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/etcd@0.1.0 transact
func transact(compare unsafe.Pointer, compares uint32, then unsafe.Pointer, thens uint32, otherwise unsafe.Pointer, otherwises uint32, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/etcd@0.1.0 next
func next(start string, ends bool, end string, after uint64, timeoutMs uint32, result unsafe.Pointer)
