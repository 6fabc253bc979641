// A routing-table adapter that keeps nothing: its answers show that everything crosses as it is.
package main

import "message-flow/sdk/routingtable"

func init() { routingtable.Handle(fixed{}) }

func main() {}

type fixed struct{}

func assignment(server string) routingtable.Assignment {
	expires := uint64(1000)
	return routingtable.Assignment{Server: server, Expires: &expires, Router: "r1", Stamp: 5}
}

func (fixed) Read() (routingtable.Snapshot, error) {
	entries := []routingtable.Entry{{"service", "chat", "{}"}, {"router", "r1", `{"a":1}`}}
	return routingtable.Snapshot{Entries: entries, Revision: 7}, nil
}

func (fixed) Changes(after uint64) (routingtable.ChangeSet, error) {
	if after == 1 {
		return routingtable.ChangeSet{}, routingtable.Compacted()
	}
	value := "{}"
	changes := []routingtable.Change{{"service", "chat", &value, true}, {"service", "gone", nil, false}}
	return routingtable.ChangeSet{Changes: changes, Revision: after + 2}, nil
}

func (fixed) Write(changes []routingtable.Change, expect *uint64) (uint64, error) {
	if expect != nil {
		return 0, routingtable.Conflict(*expect + 1)
	}
	weight := 0
	for _, change := range changes {
		weight += len(change.Key)
		if change.Value != nil {
			weight += 100
		}
		if change.Ephemeral {
			weight += 1000
		}
	}
	return uint64(weight), nil
}

func (fixed) Assigned(client, service string) (*routingtable.Assignment, error) {
	if service != "chat" {
		return nil, nil
	}
	known := assignment(client)
	return &known, nil
}

func (fixed) Assign(proposal routingtable.Proposal, condition routingtable.Condition) (*routingtable.Assignment, error) {
	made := routingtable.Assignment{Server: proposal.Server, Expires: proposal.Expires, Router: proposal.Router}
	if condition.Kind == routingtable.Unchanged {
		made.Stamp = condition.Stamp
	}
	return &made, nil
}

func (fixed) Forget(client, service string) error {
	if len(client)+len(service) > 7 {
		return routingtable.Refused("told to refuse")
	}
	return nil
}

func (fixed) Client(client string) (routingtable.ClientRecord, error) {
	router := "r1"
	of := map[string]routingtable.Assignment{"chat": assignment(client)}
	return routingtable.ClientRecord{Router: &router, Assignments: of}, nil
}

func (fixed) Locate(client string, router *string) error {
	if router == nil {
		return nil
	}
	if *router == client {
		return routingtable.Invalid("same")
	}
	return routingtable.Invalid(*router)
}

func (fixed) Sweep(now uint64, limit uint32) (uint32, error) { return uint32(now) + limit, nil }
