// A registrar that keeps clients in their region: among the servers of the client's region, else
// among all, the one with the least to do. Between equals each client has its own favourite.

#include "message-flow.h"

static uint32_t affinity(mf_text client, mf_text server);

static bool is_in(const mf_server *server, mf_text region) {
    return mf_equal(mf_find(server->metadata, MF_TEXT("region")), region);
}

// Healthy ones first, then by messages under way for each unit of weight.
static int64_t compare(const mf_server *one, const mf_server *other) {
    if (one->healthy != other->healthy) return one->healthy ? -1 : 1;
    return (int64_t)one->in_flight * other->weight - (int64_t)other->in_flight * one->weight;
}

static bool is_better(const mf_server *one, const mf_server *other, mf_text client) {
    int64_t order = compare(one, other);
    return order ? order < 0 : affinity(client, one->id) > affinity(client, other->id);
}

// Of all servers, or with a region only of those in it; null if there is none.
static const mf_server *least_loaded(mf_servers servers, mf_text region, mf_text client) {
    const mf_server *best = 0;
    for (size_t at = 0; at < servers.count; at++) {
        const mf_server *server = &servers.items[at];
        if (server->weight == 0 || (region.length && !is_in(server, region))) continue;
        if (!best || is_better(server, best, client)) best = server;
    }
    return best;
}

// The same at every router (FNV-1a).
static uint32_t hash(uint32_t seed, mf_text text) {
    for (size_t at = 0; at < text.length; at++) seed = (seed ^ (uint8_t)text.data[at]) * 0x01000193;
    return seed;
}

static uint32_t affinity(mf_text client, mf_text server) {
    uint32_t mixed = hash(hash(0x811c9dc5, client) * 0x01000193, server);
    return (mixed ^ (mixed >> 15)) * 0x2c1b3c6d;
}

static mf_answer resolve(void) {
    mf_text header = mf_config_get(MF_TEXT("header"));
    mf_text region = mf_request_header(mf_is_some(header) ? header : MF_TEXT("region"));
    mf_text client = mf_request_client();
    mf_servers servers = mf_candidates_servers();
    const mf_server *near = region.length ? least_loaded(servers, region, client) : 0;
    const mf_server *chosen = near ? near : least_loaded(servers, MF_NONE, client);
    return chosen ? mf_server_named(chosen->id) : mf_pass();
}

MF_REGISTRAR(resolve)
