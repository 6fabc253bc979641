//go:build wasip1

// Package log is the router's log: see wit/log.wit.
package log

import "fmt"

const (
	trace = iota
	debug
	info
	warn
	failure
)

// Trace writes a line that only an author wants to see.
func Trace(format string, arguments ...any) { write(trace, fmt.Sprintf(format, arguments...)) }

// Debug writes a line that helps to find out what is wrong.
func Debug(format string, arguments ...any) { write(debug, fmt.Sprintf(format, arguments...)) }

// Info writes a line that an operator may want to see.
func Info(format string, arguments ...any) { write(info, fmt.Sprintf(format, arguments...)) }

// Warn writes a line that an operator should look at.
func Warn(format string, arguments ...any) { write(warn, fmt.Sprintf(format, arguments...)) }

// Error writes a line about something that went wrong.
func Error(format string, arguments ...any) { write(failure, fmt.Sprintf(format, arguments...)) }

//go:wasmimport message-flow:plugin/log@0.1.0 log
func write(level uint32, message string)
