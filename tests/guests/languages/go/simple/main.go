// A registrar that reads one header and the client id and answers: what a call costs at least.
package main

import (
	"message-flow/sdk/registrar"
	"message-flow/sdk/request"
)

func init() { registrar.Handle(resolve) }

func main() {}

func resolve() (registrar.Decision, error) {
	region, known := request.Header("region")
	if !known {
		return registrar.Pass(), nil
	}
	if len(request.Client())+len(region) > 64 {
		return registrar.Server("far"), nil
	}
	return registrar.Server("near"), nil
}
