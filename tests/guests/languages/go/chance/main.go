// A filter that draws a number and a token, looks at the time, and prints.
package main

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand"
	"os"
	"time"

	"message-flow/sdk/request"
	"message-flow/sdk/requestfilter"
)

func init() { requestfilter.Handle(onRequest) }

func main() {}

func onRequest() (requestfilter.Verdict, error) {
	request.AddHeader("chance", fmt.Sprint(mathrand.Int63()))
	request.AddHeader("token", rand.Text())
	request.SetHeader("time", fmt.Sprint(time.Now().UnixMilli()))
	fmt.Println("it printed true")
	fmt.Fprintln(os.Stderr, "it complained")
	return requestfilter.Forward(), nil
}
