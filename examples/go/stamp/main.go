// A filter that gives each request an x-request-id, unless it brought one, and puts the same into its
// response.
package main

import (
	"fmt"

	"message-flow/sdk/config"
	"message-flow/sdk/random"
	"message-flow/sdk/request"
	"message-flow/sdk/requestfilter"
	"message-flow/sdk/response"
	"message-flow/sdk/responsefilter"
)

func init() {
	requestfilter.Handle(onRequest)
	responsefilter.Handle(onResponse)
}

func main() {}

func onRequest() (requestfilter.Verdict, error) {
	if id, _ := request.Header(name()); !isID(id) {
		request.SetHeader(name(), fmt.Sprintf("%016x", random.Next()))
	}
	return requestfilter.Forward(), nil
}

func onResponse() error {
	if id, given := request.Header(name()); given {
		response.SetHeader(name(), id)
	}
	return nil
}

func name() string {
	if configured, is := config.Get("header"); is {
		return configured
	}
	return "x-request-id"
}

// An id that a client brings goes into every log, so it has to look like one.
func isID(text string) bool {
	for _, letter := range []byte(text) {
		if letter < '!' || letter > '~' {
			return false
		}
	}
	return len(text) >= 1 && len(text) <= 128
}
