//go:build wasip1

// Package state is what a plugin remembers: see wit/state.wit.
package state

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

// ErrNotANumber says that what Add found is no number.
var ErrNotANumber = errors.New("what is there is not a number")

// FullError says that a change would have exceeded the plugin's state_limit, in bytes.
type FullError struct{ Limit uint64 }

func (err FullError) Error() string { return fmt.Sprintf("the state is full at %d bytes", err.Limit) }

// Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte
}

// Get is the value of a key, and whether there is one.
func Get(key string) ([]byte, bool) {
	abi.Ready()
	get(key, unsafe.Pointer(&option))
	return option.Bytes()
}

// Set sets the value of a key.
func Set(key string, value []byte) error {
	abi.Ready()
	set(key, text(value), unsafe.Pointer(&outcome))
	return outcome.err()
}

// Delete removes a key and says whether it was there.
func Delete(key string) bool { return remove(key) != 0 }

// Swap sets a key, or with a nil value deletes it, if what is there equals expected, where nil stands
// for nothing. It says whether it did.
func Swap(key string, expected, value []byte) (bool, error) {
	abi.Ready()
	swap(key, expected != nil, text(expected), value != nil, text(value), unsafe.Pointer(&outcome))
	return outcome.failed&0xff == 0 && outcome.value[0]&0xff != 0, outcome.err()
}

// Apply carries out all of these changes (at most 256) if everything expected is what is there, else
// none of them; a nil value deletes, or stands for nothing. It says whether it did.
func Apply(changes, expected []Entry) (bool, error) {
	abi.Ready()
	change, expect := cells(changes), cells(expected)
	apply(unsafe.Pointer(unsafe.SliceData(change)), uint32(len(change)),
		unsafe.Pointer(unsafe.SliceData(expect)), uint32(len(expect)), unsafe.Pointer(&outcome))
	runtime.KeepAlive(changes)
	runtime.KeepAlive(expected)
	return outcome.failed&0xff == 0 && outcome.value[0]&0xff != 0, outcome.err()
}

// Add adds to a number and returns the sum; with a ttlMs above 0, a number that this creates goes away
// that many milliseconds later.
func Add(key string, amount int64, ttlMs uint64) (int64, error) {
	abi.Ready()
	add(key, amount, ttlMs > 0, ttlMs, unsafe.Pointer(&outcome))
	return int64(outcome.value[0]) | int64(outcome.value[1])<<32, outcome.err()
}

// Scan returns up to limit entries whose keys start with prefix and come after another key; with an
// empty one, from the first on.
func Scan(prefix, after string, limit uint32) []Entry {
	abi.Ready()
	scan(prefix, after != "", after, limit, unsafe.Pointer(&list))
	pairs := abi.Items[abi.Pair](list)
	entries := make([]Entry, len(pairs))
	for at, pair := range pairs {
		entries[at] = Entry{pair.Key.String(), pair.Value.Bytes()}
	}
	return entries
}

// An entry as the host reads it.
type cell struct {
	key   abi.Text
	value abi.Option
}

func cells(entries []Entry) []cell {
	written := make([]cell, len(entries))
	for at, entry := range entries {
		written[at] = cell{abi.Given(entry.Key), abi.Maybe(text(entry.Value), entry.Value != nil)}
	}
	return written
}

var (
	option  abi.Option
	list    abi.List
	outcome result
)

// A result whose error is WIT's state-error; the host writes it to a multiple of eight.
type result struct {
	_      [0]uint64
	failed uint32
	_      uint32
	value  [2]uint32
	detail [2]uint32
}

func (outcome *result) err() error {
	if outcome.failed&0xff == 0 {
		return nil
	}
	switch outcome.value[0] & 0xff {
	case 0:
		return FullError{uint64(outcome.detail[0]) | uint64(outcome.detail[1])<<32}
	case 1:
		return ErrNotANumber
	default:
		text := (*abi.Text)(unsafe.Pointer(&outcome.detail))
		return errors.New(text.String())
	}
}

func text(bytes []byte) string { return unsafe.String(unsafe.SliceData(bytes), len(bytes)) }

//go:wasmimport message-flow:plugin/state@0.1.0 get
func get(key string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/state@0.1.0 set
func set(key, value string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/state@0.1.0 delete
func remove(key string) uint32

//go:wasmimport message-flow:plugin/state@0.1.0 swap
func swap(key string, expects bool, expected string, sets bool, value string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/state@0.1.0 apply
func apply(changes unsafe.Pointer, changed uint32, expected unsafe.Pointer, expects uint32, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/state@0.1.0 add
func add(key string, amount int64, expires bool, ttlMs uint64, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/state@0.1.0 scan
func scan(prefix string, begins bool, after string, limit uint32, result unsafe.Pointer)
