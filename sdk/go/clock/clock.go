//go:build wasip1

// Package clock is the time: see wit/clock.wit. Go's own package time works as well.
package clock

// Now is the number of milliseconds since the Unix epoch.
func Now() uint64 { return uint64(now()) }

// Monotonic is the number of nanoseconds since an arbitrary moment; it never goes backwards.
func Monotonic() uint64 { return uint64(monotonic()) }

//go:wasmimport message-flow:plugin/clock@0.1.0 now
func now() int64

//go:wasmimport message-flow:plugin/clock@0.1.0 monotonic
func monotonic() int64
