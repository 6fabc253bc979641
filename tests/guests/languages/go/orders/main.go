// An event filter: empty orders are dropped, large ones go to a topic of their own, all others are
// marked.
package main

import (
	"message-flow/sdk/event"
	"message-flow/sdk/eventfilter"
)

func init() { eventfilter.Handle(onEvent) }

func main() {}

func onEvent() (eventfilter.Verdict, error) {
	size := len(event.Payload())
	switch {
	case event.Topic() != "orders":
		return eventfilter.Reject("orders only"), nil
	case size == 0:
		return eventfilter.Drop(), nil
	case size > 10:
		return eventfilter.Redirect("orders.large"), nil
	}
	event.SetAttribute("seen-by", event.Client())
	if _, raw := event.Attribute("raw"); !raw {
		event.SetPayload([]byte("marked"))
	}
	return eventfilter.Accept(), nil
}
