//go:build wasip1

// Package routingtable makes a plugin a routing-table adapter: see wit/routing-table.wit.
package routingtable

import "fmt"

// Table is what an adapter does, by the names of wit/routing-table.wit, which says what each must hold.
type Table interface {
	Read() (Snapshot, error)
	Changes(after uint64) (ChangeSet, error)
	// Without an expected revision: nil.
	Write(changes []Change, expect *uint64) (uint64, error)
	// Nil: there is none.
	Assigned(client, service string) (*Assignment, error)
	Assign(proposal Proposal, condition Condition) (*Assignment, error)
	Forget(client, service string) error
	Client(client string) (ClientRecord, error)
	// Without a router: nil.
	Locate(client string, router *string) error
	Sweep(now uint64, limit uint32) (uint32, error)
}

// Handle names the table; to be called in init.
func Handle(adapter Table) { table = adapter }

// Entry is a service, server, release or router.
type Entry struct{ Kind, Key, Value string }

// Snapshot is every entry at one revision.
type Snapshot struct {
	Entries  []Entry
	Revision uint64
}

// Change is a put of an entry, or without a value its deletion.
type Change struct {
	Kind, Key string
	Value     *string
	// It goes away by itself soon after this router dies, where the datastore can do that.
	Ephemeral bool
}

// ChangeSet is what happened up to a revision.
type ChangeSet struct {
	Changes  []Change
	Revision uint64
}

// Assignment is the remembered server of a client for a service.
type Assignment struct {
	Server string
	// Milliseconds since the Unix epoch; nil: it is pinned.
	Expires *uint64
	Router  string
	// Changes with every write to this assignment.
	Stamp uint64
}

// Proposal is an assignment to be made.
type Proposal struct {
	Client, Service, Server string
	Expires                 *uint64
	Router                  string
}

// Condition is on what Assign depends.
type Condition struct {
	Kind ConditionKind
	// Of Unchanged.
	Stamp uint64
}

// ConditionKind is one of the conditions.
type ConditionKind uint32

// There is no assignment; the one there still has this stamp; whatever is there.
const (
	Absent ConditionKind = iota
	Unchanged
	Always
)

// ClientRecord is what is known of a client.
type ClientRecord struct {
	// Nil: it is not connected anywhere.
	Router *string
	// By service.
	Assignments map[string]Assignment
}

// Error is an error that routers tell apart; any other is shown as it is.
type Error struct {
	cause    uint32
	text     string
	revision uint64
}

// Unavailable says that the datastore cannot be reached; a later call may work.
func Unavailable(text string) Error { return Error{cause: 0, text: text} }

// Compacted says that what came after that revision is no longer known.
func Compacted() Error { return Error{cause: 1, text: "compacted"} }

// Conflict says that the table is at another revision than was expected.
func Conflict(revision uint64) Error {
	return Error{cause: 2, text: fmt.Sprintf("the table is at %d", revision), revision: revision}
}

// Refused says that the datastore answered no.
func Refused(text string) Error { return Error{cause: 3, text: text} }

// Invalid says that stored data, or an argument, cannot be understood.
func Invalid(text string) Error { return Error{cause: 4, text: text} }

func (err Error) Error() string { return err.text }
