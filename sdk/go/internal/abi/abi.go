//go:build wasip1

// Package abi is how text and bytes cross between a plugin and its host: the canonical ABI of
// WebAssembly components, for a core module as Go makes it.
package abi

import "unsafe"

// What the host hands out is written into chunks of Go's own heap, so that whoever keeps a string
// keeps its chunk, and nothing has to be copied or freed. A chunk is made before the host is called,
// never while it asks for memory: the garbage collector looks at the clock, which a component may
// not do in the middle of a call to its host.
const (
	chunkSize = 64 << 10
	// What a call to the host should find free; with less, a new chunk is made.
	enough = 16 << 10
)

var (
	chunk []byte
	// What did not fit into a chunk, until the call to the host is over and its results are read.
	large [][]byte
	// Before Go itself has started, its heap cannot be used: this is for the adapter to WASI, which
	// asks for two pieces of 64 KiB.
	started bool
	early   [256 << 10]byte
	taken   uintptr
)

func init() {
	started = true
}

// Ready makes room for what the host will return. To be called before each call that returns any.
func Ready() {
	if len(chunk) < enough {
		chunk = make([]byte, chunkSize)
	}
	if large != nil {
		large = nil
	}
}

// Lets the clock stand still, for the garbage collector's sake.
//
//go:wasmimport wasi_snapshot_preview1 adapter_monotonic_clock_set_paused
func pauseClock(paused bool)

//go:wasmexport cabi_realloc
func realloc(before unsafe.Pointer, had, align, size uintptr) unsafe.Pointer {
	after := allocate(align, size)
	if had > 0 {
		copy(unsafe.Slice((*byte)(after), size), unsafe.Slice((*byte)(before), had))
	}
	return after
}

func allocate(align, size uintptr) unsafe.Pointer {
	if size == 0 {
		return unsafe.Pointer(align)
	}
	if !started {
		start := unsafe.Pointer(&early[taken])
		start = unsafe.Add(start, -uintptr(start)&(align-1))
		taken = uintptr(start) + size - uintptr(unsafe.Pointer(&early))
		return start
	}
	// Chunks begin at multiples of 8, which is the most that is asked for.
	if skip := -uintptr(unsafe.Pointer(unsafe.SliceData(chunk))) & (align - 1); skip+size <= uintptr(len(chunk)) {
		start := unsafe.Pointer(&chunk[skip])
		chunk = chunk[skip+size:]
		return start
	}
	pauseClock(true)
	block := make([]byte, size+align)
	large = append(large, block)
	pauseClock(false)
	start := unsafe.Pointer(unsafe.SliceData(block))
	return unsafe.Add(start, -uintptr(start)&(align-1))
}

// Text is a string or list of bytes as the host writes it.
type Text struct {
	data   uint32
	length uint32
}

// String is what was written, without a copy.
func (text Text) String() string {
	return unsafe.String((*byte)(pointer(text.data)), text.length)
}

// Bytes is what was written, without a copy.
func (text Text) Bytes() []byte {
	return unsafe.Slice((*byte)(pointer(text.data)), text.length)
}

// Given is a string to hand to the host; it must be kept until the host has read it.
func Given(text string) Text {
	return Text{uint32(uintptr(unsafe.Pointer(unsafe.StringData(text)))), uint32(len(text))}
}

// Option is WIT's option<string> or option<list<u8>>.
type Option struct {
	some uint32
	text Text
}

// Maybe is a string to hand to the host, if there is one.
func Maybe(text string, some bool) Option {
	if !some {
		return Option{}
	}
	return Option{1, Given(text)}
}

// Number is WIT's option<u64>.
type Number struct {
	some  uint32
	_     uint32
	value uint64
}

// MaybeNumber is a number to hand to the host, if there is one.
func MaybeNumber(number *uint64) Number {
	if number == nil {
		return Number{}
	}
	return Number{some: 1, value: *number}
}

// String is its text, and whether there is one.
func (option *Option) String() (string, bool) {
	if option.some&0xff == 0 {
		return "", false
	}
	return option.text.String(), true
}

// Bytes are its bytes, and whether there are any.
func (option *Option) Bytes() ([]byte, bool) {
	if option.some&0xff == 0 {
		return nil, false
	}
	return option.text.Bytes(), true
}

// Kept holds on to what the host wrote in its last call, for who reads it bit by bit.
type Kept struct {
	chunk []byte
	large [][]byte
}

// Keep holds on to what the host just wrote.
func Keep() *Kept {
	return &Kept{chunk, large}
}

// List is WIT's list of anything but bytes.
type List struct {
	data   uint32
	length uint32
}

// Listed is a list to hand to the host; it must be kept until the host has read it.
func Listed[T any](items []T) List {
	return List{uint32(uintptr(unsafe.Pointer(unsafe.SliceData(items)))), uint32(len(items))}
}

// Read is a text that the host handed over with a call.
func Read(data unsafe.Pointer, length uint32) string {
	return unsafe.String((*byte)(data), length)
}

// Items are the elements of a list, in the place where the host wrote them.
func Items[T any](list List) []T {
	return unsafe.Slice((*T)(pointer(list.data)), list.length)
}

// Strings are the elements of a list<string>.
func (list List) Strings() []string {
	texts := Items[Text](list)
	strings := make([]string, len(texts))
	for at, text := range texts {
		strings[at] = text.String()
	}
	return strings
}

// Pair is WIT's tuple<string, string> or tuple<string, list<u8>>.
type Pair struct {
	Key, Value Text
}

// Map is a list<tuple<string, string>> by its first elements.
func (list List) Map() map[string]string {
	pairs := Items[Pair](list)
	if len(pairs) == 0 {
		return nil
	}
	entries := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		entries[pair.Key.String()] = pair.Value.String()
	}
	return entries
}

// The host writes addresses as numbers.
func pointer(address uint32) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(nil), uintptr(address))
}

// Answer is what an exported function returns: a result, and in it a variant, a text or both.
type Answer struct {
	words [5]uint32
	// Kept for the host, which reads it after the function has returned.
	text string
}

// Give returns the case of a variant, with a text if it has one.
func (answer *Answer) Give(tag uint32, text string) unsafe.Pointer {
	answer.text = text
	given := Given(text)
	answer.words = [5]uint32{0, tag, given.data, given.length, 0}
	return unsafe.Pointer(answer)
}

// GiveRejection returns the case of a variant that holds a status and a reason.
func (answer *Answer) GiveRejection(tag uint32, status uint16, reason string) unsafe.Pointer {
	answer.text = reason
	given := Given(reason)
	answer.words = [5]uint32{0, tag, uint32(status), given.data, given.length}
	return unsafe.Pointer(answer)
}

// Fail returns an error.
func (answer *Answer) Fail(err error) unsafe.Pointer {
	answer.text = err.Error()
	given := Given(answer.text)
	answer.words = [5]uint32{1, given.data, given.length, 0, 0}
	return unsafe.Pointer(answer)
}
