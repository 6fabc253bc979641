// A registrar that keeps clients in their region: among the servers of the client's region, else
// among all, the one with the least to do. Between equals each client has its own favourite.
package main

import (
	"hash/fnv"
	"io"

	"message-flow/sdk/candidates"
	"message-flow/sdk/config"
	"message-flow/sdk/registrar"
	"message-flow/sdk/request"
)

func init() { registrar.Handle(resolve) }

func main() {}

func resolve() (registrar.Decision, error) {
	header, configured := config.Get("header")
	if !configured {
		header = "region"
	}
	region, _ := request.Header(header)
	servers := candidates.Servers()
	chosen := leastLoaded(servers, region)
	if chosen == nil && region != "" {
		chosen = leastLoaded(servers, "")
	}
	if chosen == nil {
		return registrar.Pass(), nil
	}
	return registrar.Server(chosen.ID), nil
}

// Of those in a region, or of all; nil if there is none.
func leastLoaded(servers []candidates.Server, region string) *candidates.Server {
	var best *candidates.Server
	for at := range servers {
		server := &servers[at]
		if server.Weight == 0 || (region != "" && !isIn(server, region)) {
			continue
		}
		if best == nil || isBetter(server, best) {
			best = server
		}
	}
	return best
}

func isIn(server *candidates.Server, region string) bool {
	its, known := server.Metadata("region")
	return known && its == region
}

// Healthy ones first, then by messages under way for each unit of weight.
func isBetter(one, other *candidates.Server) bool {
	if one.Healthy != other.Healthy {
		return one.Healthy
	}
	load, otherLoad := uint64(one.InFlight)*uint64(other.Weight), uint64(other.InFlight)*uint64(one.Weight)
	if load != otherLoad {
		return load < otherLoad
	}
	client := request.Client()
	return affinity(client, one.ID) > affinity(client, other.ID)
}

// The same at every router.
func affinity(client, server string) uint32 {
	hash := fnv.New32a()
	io.WriteString(hash, client)
	io.WriteString(hash, " ")
	io.WriteString(hash, server)
	mixed := hash.Sum32()
	return (mixed ^ mixed>>15) * 0x2c1b3c6d
}
