//go:build wasip1

// Package etcd is an etcd cluster, by grant (grant = ["etcd"]): see wit/etcd.wit.
package etcd

import (
	"fmt"
	"runtime"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

// Range is the keys from Start on and before End; with an empty End, the one key Start.
type Range struct{ Start, End string }

// KeyValue is a key as it was at a revision.
type KeyValue struct {
	Key               string
	Value             []byte
	Modified, Version uint64
}

// Page is a part of a range.
type Page struct {
	Entries  []KeyValue
	More     bool
	Revision uint64
}

// Event is a change of a key; without a value, its deletion.
type Event struct {
	Key               string
	Value             []byte
	Revision, Version uint64
}

// Batch is every change up to a revision.
type Batch struct {
	Events   []Event
	Revision uint64
}

// Outcome is what became of a transaction; Found has what each Get found, nil for nothing.
type Outcome struct {
	Succeeded bool
	Found     []*KeyValue
	Revision  uint64
}

// Error is why a call failed.
type Error struct {
	Cause Cause
	text  string
	// Of Compacted: the oldest revision that is kept.
	Revision uint64
}

// Cause is one of the causes.
type Cause uint8

// The cases of WIT's etcd-error.
const (
	Unavailable Cause = iota
	Compacted
	Denied
	Invalid
	Other
)

func (err Error) Error() string {
	if err.Cause == Compacted {
		return fmt.Sprintf("compacted up to revision %d", err.Revision)
	}
	return err.text
}

// Comparison is what must hold for a transaction.
type Comparison struct {
	written comparison
	kept    [2]string
}

// Modified holds if a key was last changed at this revision; 0: if it is absent.
func Modified(key string, revision uint64) Comparison {
	given := Comparison{kept: [2]string{key}}
	given.written = comparison{tag: 0, key: abi.Given(key)}
	*(*uint64)(unsafe.Pointer(&given.written.end)) = revision
	return given
}

// NoneModifiedAfter holds if no key of a range changed after this revision.
func NoneModifiedAfter(keys Range, revision uint64) Comparison {
	return Comparison{
		comparison{tag: 1, key: abi.Given(keys.Start), end: abi.Maybe(keys.End, keys.End != ""), revision: revision},
		[2]string{keys.Start, keys.End},
	}
}

// Operation is a part of a transaction.
type Operation struct {
	written operation
	key     string
	value   string
}

// Put sets a key; leased, it goes away when this router dies.
func Put(key string, value []byte, leased bool) Operation {
	text := unsafe.String(unsafe.SliceData(value), len(value))
	given := operation{tag: 0, key: abi.Given(key), value: abi.Given(text)}
	if leased {
		given.leased = 1
	}
	return Operation{given, key, text}
}

// Delete removes the keys of a range.
func Delete(keys Range) Operation {
	given := Operation{operation{tag: 1, key: abi.Given(keys.Start)}, keys.Start, keys.End}
	*(*abi.Option)(unsafe.Pointer(&given.written.value)) = abi.Maybe(keys.End, keys.End != "")
	return given
}

// Get reads one key.
func Get(key string) Operation {
	return Operation{operation{tag: 2, key: abi.Given(key)}, key, ""}
}

// List reads at most limit keys of a range; at an earlier revision, or with 0 at the latest.
func List(keys Range, limit uint32, at uint64) (Page, error) {
	abi.Ready()
	list(keys.Start, keys.End != "", keys.End, limit, at != 0, at, unsafe.Pointer(&result))
	if err := result.err(); err != nil {
		return Page{}, err
	}
	entries := abi.Items[keyValue](result.list)
	page := Page{make([]KeyValue, len(entries)), result.flag&0xff != 0, result.revision}
	for at := range entries {
		page.Entries[at] = entries[at].read()
	}
	return page, nil
}

// Transact carries out then if all comparisons hold, else otherwise; at most 128 operations.
func Transact(compare []Comparison, then, otherwise []Operation) (Outcome, error) {
	abi.Ready()
	comparisons := make([]comparison, len(compare))
	for at := range compare {
		comparisons[at] = compare[at].written
	}
	thens, otherwises := written(then), written(otherwise)
	transact(unsafe.Pointer(unsafe.SliceData(comparisons)), uint32(len(comparisons)),
		unsafe.Pointer(unsafe.SliceData(thens)), uint32(len(thens)),
		unsafe.Pointer(unsafe.SliceData(otherwises)), uint32(len(otherwises)), unsafe.Pointer(&result))
	runtime.KeepAlive(compare)
	runtime.KeepAlive(then)
	runtime.KeepAlive(otherwise)
	if err := result.err(); err != nil {
		return Outcome{}, err
	}
	// Other than a page, it begins with the flag.
	shifted := (*transacted)(unsafe.Pointer(&result.list))
	found := abi.Items[maybeKeyValue](shifted.found)
	outcome := Outcome{shifted.succeeded&0xff != 0, make([]*KeyValue, len(found)), shifted.revision}
	for at := range found {
		if found[at].some&0xff != 0 {
			entry := found[at].entry.read()
			outcome.Found[at] = &entry
		}
	}
	return outcome, nil
}

// Next is what changed in a range after a revision; it waits up to timeoutMs for the first change.
func Next(keys Range, after uint64, timeoutMs uint32) (Batch, error) {
	abi.Ready()
	next(keys.Start, keys.End != "", keys.End, after, timeoutMs, unsafe.Pointer(&result))
	if err := result.err(); err != nil {
		return Batch{}, err
	}
	read := (*batch)(unsafe.Pointer(&result.list))
	events := abi.Items[event](read.events)
	given := Batch{make([]Event, len(events)), read.revision}
	for at := range events {
		value, _ := events[at].value.Bytes()
		given.Events[at] = Event{events[at].key.String(), value, events[at].revision, events[at].version}
	}
	return given, nil
}
