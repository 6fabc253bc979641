//go:build wasip1

// Package config is what the operator wrote in [plugin.NAME] config: see wit/config.wit.
package config

import (
	"unsafe"

	"message-flow/sdk/internal/abi"
)

var (
	option abi.Option
	list   abi.List
)

// Get is the value of a key, and whether there is one.
func Get(key string) (string, bool) {
	abi.Ready()
	get(key, unsafe.Pointer(&option))
	return option.String()
}

// Entries are all keys with their values.
func Entries() map[string]string {
	abi.Ready()
	entries(unsafe.Pointer(&list))
	return list.Map()
}

//go:wasmimport message-flow:plugin/config@0.1.0 get
func get(key string, result unsafe.Pointer)

//go:wasmimport message-flow:plugin/config@0.1.0 entries
func entries(result unsafe.Pointer)
