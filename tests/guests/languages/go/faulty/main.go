// A filter that fails in the way that the header `fault` names.
package main

import (
	"errors"
	"os"

	"message-flow/sdk/request"
	"message-flow/sdk/requestfilter"
)

func init() { requestfilter.Handle(onRequest) }

func main() {}

var hoard [][]byte

func onRequest() (requestfilter.Verdict, error) {
	switch fault, _ := request.Header("fault"); fault {
	case "throw":
		panic("told to throw")
	case "error":
		return requestfilter.Forward(), errors.New("told to err")
	case "exit":
		os.Exit(3)
	case "loop":
		for {
		}
	case "allocate":
		for {
			hoard = append(hoard, make([]byte, 1<<20))
		}
	case "recurse":
		recurse(1)
	}
	request.SetHeader("faulty", "fine")
	return requestfilter.Forward(), nil
}

func recurse(depth int) int {
	return recurse(depth+1) + depth
}
