//go:build wasip1

package routingtable

import (
	"errors"
	"unsafe"

	"message-flow/sdk/internal/abi"
)

var (
	table  Table
	result answer
)

// What an exported function returns, with room for the longest, and what the host reads through it
// after the function has returned.
type answer struct {
	words [8]uint64
	kept  any
	text  string
}

// The place of what was asked for.
func (answer *answer) okay(kept any) unsafe.Pointer {
	answer.words, answer.kept = [8]uint64{}, kept
	return unsafe.Pointer(&answer.words[1])
}

func (answer *answer) fail(err error) unsafe.Pointer {
	known := Error{cause: 5, text: err.Error()}
	errors.As(err, &known)
	answer.words, answer.kept, answer.text = [8]uint64{1, uint64(known.cause)}, nil, known.text
	if known.cause == 2 {
		answer.words[2] = known.revision
	} else {
		*(*abi.Text)(unsafe.Pointer(&answer.words[2])) = abi.Given(answer.text)
	}
	return unsafe.Pointer(&answer.words)
}

func (answer *answer) pointer() unsafe.Pointer { return unsafe.Pointer(&answer.words) }

// As the host reads and writes them.
type (
	entry struct{ kind, key, value abi.Text }

	change struct {
		kind, key abi.Text
		value     abi.Option
		ephemeral uint32
	}

	listed struct {
		items    abi.List
		revision uint64
	}

	assignment struct {
		server  abi.Text
		expires abi.Number
		router  abi.Text
		stamp   uint64
	}

	maybeAssignment struct {
		some       uint64
		assignment assignment
	}

	assigned struct {
		service    abi.Text
		assignment assignment
	}

	clientRecord struct {
		router      abi.Option
		assignments abi.List
	}
)

func writtenAssignment(given *Assignment) assignment {
	return assignment{abi.Given(given.Server), abi.MaybeNumber(given.Expires), abi.Given(given.Router), given.Stamp}
}

func giveAssignment(given *Assignment, err error) unsafe.Pointer {
	if err != nil {
		return result.fail(err)
	}
	place := (*maybeAssignment)(result.okay(given))
	if given != nil {
		*place = maybeAssignment{1, writtenAssignment(given)}
	}
	return result.pointer()
}

func number(some uint32, value uint64) *uint64 {
	if some == 0 {
		return nil
	}
	return &value
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#read
func read() unsafe.Pointer {
	snapshot, err := table.Read()
	if err != nil {
		return result.fail(err)
	}
	entries := make([]entry, len(snapshot.Entries))
	for at, given := range snapshot.Entries {
		entries[at] = entry{abi.Given(given.Kind), abi.Given(given.Key), abi.Given(given.Value)}
	}
	*(*listed)(result.okay([]any{snapshot, entries})) = listed{abi.Listed(entries), snapshot.Revision}
	return result.pointer()
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#changes
func changes(after uint64) unsafe.Pointer {
	set, err := table.Changes(after)
	if err != nil {
		return result.fail(err)
	}
	written := make([]change, len(set.Changes))
	for at, given := range set.Changes {
		written[at] = change{kind: abi.Given(given.Kind), key: abi.Given(given.Key)}
		if given.Value != nil {
			written[at].value = abi.Maybe(*given.Value, true)
		}
		if given.Ephemeral {
			written[at].ephemeral = 1
		}
	}
	*(*listed)(result.okay([]any{set, written})) = listed{abi.Listed(written), set.Revision}
	return result.pointer()
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#write
func write(items unsafe.Pointer, count uint32, expects uint32, expected uint64) unsafe.Pointer {
	given := make([]Change, count)
	for at, written := range unsafe.Slice((*change)(items), count) {
		given[at] = Change{Kind: written.kind.String(), Key: written.key.String(), Ephemeral: written.ephemeral&0xff != 0}
		if value, some := written.value.String(); some {
			given[at].Value = &value
		}
	}
	revision, err := table.Write(given, number(expects, expected))
	if err != nil {
		return result.fail(err)
	}
	*(*uint64)(result.okay(nil)) = revision
	return result.pointer()
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#assigned
func whatIsAssigned(client unsafe.Pointer, clientLength uint32, service unsafe.Pointer, serviceLength uint32) unsafe.Pointer {
	return giveAssignment(table.Assigned(abi.Read(client, clientLength), abi.Read(service, serviceLength)))
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#assign
func assign(
	client unsafe.Pointer, clientLength uint32,
	service unsafe.Pointer, serviceLength uint32,
	server unsafe.Pointer, serverLength uint32,
	expires uint32, when uint64,
	router unsafe.Pointer, routerLength uint32,
	condition uint32, stamp uint64,
) unsafe.Pointer {
	proposal := Proposal{
		Client:  abi.Read(client, clientLength),
		Service: abi.Read(service, serviceLength),
		Server:  abi.Read(server, serverLength),
		Expires: number(expires, when),
		Router:  abi.Read(router, routerLength),
	}
	return giveAssignment(table.Assign(proposal, Condition{ConditionKind(condition), stamp}))
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#forget
func forget(client unsafe.Pointer, clientLength uint32, service unsafe.Pointer, serviceLength uint32) unsafe.Pointer {
	return done(table.Forget(abi.Read(client, clientLength), abi.Read(service, serviceLength)))
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#client
func client(name unsafe.Pointer, length uint32) unsafe.Pointer {
	record, err := table.Client(abi.Read(name, length))
	if err != nil {
		return result.fail(err)
	}
	var all []assigned
	for service, given := range record.Assignments {
		all = append(all, assigned{abi.Given(service), writtenAssignment(&given)})
	}
	written := clientRecord{assignments: abi.Listed(all)}
	if record.Router != nil {
		written.router = abi.Maybe(*record.Router, true)
	}
	*(*clientRecord)(result.okay([]any{record, all})) = written
	return result.pointer()
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#locate
func locate(client unsafe.Pointer, length uint32, some uint32, router unsafe.Pointer, routerLength uint32) unsafe.Pointer {
	var at *string
	if some != 0 {
		name := abi.Read(router, routerLength)
		at = &name
	}
	return done(table.Locate(abi.Read(client, length), at))
}

//go:wasmexport message-flow:plugin/routing-table@0.1.0#sweep
func sweep(now uint64, limit uint32) unsafe.Pointer {
	swept, err := table.Sweep(now, limit)
	if err != nil {
		return result.fail(err)
	}
	*(*uint32)(result.okay(nil)) = swept
	return result.pointer()
}

func done(err error) unsafe.Pointer {
	if err != nil {
		return result.fail(err)
	}
	result.okay(nil)
	return result.pointer()
}
