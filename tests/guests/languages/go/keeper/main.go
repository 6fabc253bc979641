// A filter that keeps what the header keep says in etcd and in its state, and tells what it finds.
package main

import (
	"errors"
	"math"

	"message-flow/sdk/etcd"
	"message-flow/sdk/request"
	"message-flow/sdk/requestfilter"
	"message-flow/sdk/state"
)

const key = "/keeper/last"

func init() { requestfilter.Handle(onRequest) }

func main() {}

func onRequest() (requestfilter.Verdict, error) {
	if kept, given := request.Header("keep"); given {
		if err := keep(kept); err != nil {
			return requestfilter.Verdict{}, err
		}
	}
	return requestfilter.Forward(), nil
}

func keep(kept string) error {
	noneLater := []etcd.Comparison{etcd.NoneModifiedAfter(etcd.Range{Start: key}, math.MaxInt64)}
	done, err := etcd.Transact(noneLater, []etcd.Operation{etcd.Put(key, []byte(kept), false), etcd.Get(key)}, nil)
	if err != nil {
		return err
	}
	if !done.Succeeded || len(done.Found) != 1 || done.Found[0] == nil {
		return errors.New("it was changed meanwhile")
	}
	request.SetHeader("found", string(done.Found[0].Value))
	page, err := etcd.List(etcd.Range{Start: key, End: "/keeper/m"}, 10, done.Revision)
	if err != nil || len(page.Entries) != 1 || page.More {
		return errors.Join(errors.New("no such page"), err)
	}
	request.SetHeader("listed", string(page.Entries[0].Value))
	batch, err := etcd.Next(etcd.Range{Start: key}, done.Revision-1, 1000)
	if err != nil || len(batch.Events) < 1 {
		return errors.Join(errors.New("no such batch"), err)
	}
	request.SetHeader("told", string(batch.Events[0].Value))
	return apply(kept)
}

// Twice, of which the second finds what the first did.
func apply(kept string) error {
	changes := []state.Entry{{Key: "a", Value: []byte(kept)}, {Key: "b", Value: []byte(kept)}}
	absent := []state.Entry{{Key: "a"}}
	first, err := state.Apply(changes, absent)
	if err != nil {
		return err
	}
	second, err := state.Apply(changes, absent)
	if err != nil || !first || second {
		return errors.Join(errors.New("applied otherwise than once"), err)
	}
	value, _ := state.Get("b")
	request.SetHeader("applied", string(value))
	return nil
}
