// A registrar that keeps clients in their region: among the servers of the client's region, else
// among all, the one with the least to do. Between equals each client has its own favourite.
package main

import (
	"message-flow/sdk/candidates"
	"message-flow/sdk/config"
	"message-flow/sdk/registrar"
	"message-flow/sdk/request"
)

func init() { registrar.Handle(resolve) }

func main() {}

func resolve() (registrar.Decision, error) {
	if region, known := request.Header(header()); known {
		if near, found := candidates.LeastLoaded(candidates.Pair{Key: "region", Value: region}); found {
			return registrar.Server(near), nil
		}
	}
	if server, found := candidates.LeastLoaded(); found {
		return registrar.Server(server), nil
	}
	return registrar.Pass(), nil
}

// Which header says where a client is.
func header() string {
	if configured, is := config.Get("header"); is {
		return configured
	}
	return "region"
}
