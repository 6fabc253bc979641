//go:build wasip1

// Package random is chance: see wit/random.wit. Go's own crypto/rand works as well.
package random

// Next is 64 random bits, fit for tokens.
func Next() uint64 { return uint64(next()) }

//go:wasmimport message-flow:plugin/random@0.1.0 next
func next() int64
