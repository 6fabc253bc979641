// Write Message Flow plugins in C: one header, no library and no generator.
//
// Include it in one file, define what the plugin is with MF_REGISTRAR, MF_REQUEST_FILTER,
// MF_RESPONSE_FILTER, MF_EVENT_FILTER or MF_LIFECYCLE, and compile to a core WebAssembly module.
// What each function means is said in the files of wit/, which are the reference manual; they have
// the same names here, with mf_ in front.
//
// Whatever the host hands out lives until the exported function returns, and then is gone with
// everything that mf_allocate gave: there is nothing to free. What must last belongs into mf_state.
#ifndef MESSAGE_FLOW_H
#define MESSAGE_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

_Static_assert(sizeof(void *) == 4, "compile for wasm32");

// Text or bytes. Not terminated by a zero; without `data` there is none at all (WIT's `none`).
typedef struct {
    const char *data;
    size_t length;
} mf_text;

typedef struct { mf_text key, value; } mf_pair;
typedef struct { const mf_text *items; size_t count; } mf_texts;
typedef struct { const mf_pair *items; size_t count; } mf_pairs;

#define MF_TEXT(literal) ((mf_text){(literal), sizeof(literal) - 1})
#define MF_NONE ((mf_text){0, 0})

static inline bool mf_is_some(mf_text text) { return text.data != 0; }

static inline bool mf_equal(mf_text one, mf_text other) {
    if (one.length != other.length) return false;
    for (size_t at = 0; at < one.length; at++)
        if (one.data[at] != other.data[at]) return false;
    return true;
}

// Pairs written in place: MF_PAIRS({MF_TEXT("region"), region}).
#define MF_PAIRS(...) ((mf_pairs){(const mf_pair[]){__VA_ARGS__}, sizeof((const mf_pair[]){__VA_ARGS__}) / sizeof(mf_pair)})
#define MF_NO_PAIRS ((mf_pairs){0, 0})

// Of a pair's value by its key; none if there is no such pair.
static inline mf_text mf_find(mf_pairs pairs, mf_text key) {
    for (size_t at = 0; at < pairs.count; at++)
        if (mf_equal(pairs.items[at].key, key)) return pairs.items[at].value;
    return MF_NONE;
}

// ---- memory -------------------------------------------------------------------------------------

// Memory until the end of the call; never null: without any left, the call ends with the error
// that names the plugin's limit.
void *mf_allocate(size_t size, size_t align);

// ---- what the host gives ------------------------------------------------------------------------

#define MF_IMPORT(interface, function) \
    __attribute__((import_module("message-flow:plugin/" interface "@0.1.0"), import_name(function)))

// What there may be, as it crosses: the canonical ABI of components lays out records like C.
typedef struct { uint8_t some; mf_text text; } mf_maybe_text;
typedef struct { uint8_t some; uint64_t number; } mf_maybe_number;
static inline mf_maybe_text mf_some(mf_text text) { return (mf_maybe_text){mf_is_some(text), text}; }

// The host writes what it returns here.
typedef struct {
    uint8_t failed;
    union {
        bool flag;
        int64_t number;
        mf_text bytes;
        struct { uint8_t tag; union { uint64_t limit; mf_text text; } of; } error;
    } of;
} mf_abi_result;
static inline mf_text mf_text_of(mf_maybe_text option) {
    if (!option.some) return MF_NONE;
    // Empty, and yet there.
    return option.text.length ? option.text : (mf_text){"", 0};
}
#define MF_ABI_RETURN(type, call) ({ type mf_returned; call; mf_returned; })

// The request at hand.
MF_IMPORT("request", "method") void mf_abi_request_method(mf_text *);
MF_IMPORT("request", "path") void mf_abi_request_path(mf_text *);
MF_IMPORT("request", "query") void mf_abi_request_query(mf_maybe_text *);
MF_IMPORT("request", "authority") void mf_abi_request_authority(mf_text *);
MF_IMPORT("request", "header") void mf_abi_request_header(const char *, size_t, mf_maybe_text *);
MF_IMPORT("request", "headers") void mf_abi_request_headers(const char *, size_t, mf_texts *);
MF_IMPORT("request", "header-names") void mf_abi_request_header_names(mf_texts *);
MF_IMPORT("request", "client") void mf_abi_request_client(mf_text *);
MF_IMPORT("request", "peer") void mf_abi_request_peer(mf_text *);
MF_IMPORT("request", "service") void mf_abi_request_service(void *);
MF_IMPORT("request", "server") void mf_abi_request_server(mf_maybe_text *);
MF_IMPORT("request", "set-header") void mf_abi_request_set_header(const char *, size_t, const char *, size_t);
MF_IMPORT("request", "add-header") void mf_abi_request_add_header(const char *, size_t, const char *, size_t);
MF_IMPORT("request", "remove-header") void mf_abi_request_remove_header(const char *, size_t);
MF_IMPORT("request", "set-path") void mf_abi_request_set_path(const char *, size_t);

typedef struct { mf_text name, version; } mf_service_id;

static inline mf_text mf_request_method(void) { return MF_ABI_RETURN(mf_text, mf_abi_request_method(&mf_returned)); }
static inline mf_text mf_request_path(void) { return MF_ABI_RETURN(mf_text, mf_abi_request_path(&mf_returned)); }
static inline mf_text mf_request_query(void) { return mf_text_of(MF_ABI_RETURN(mf_maybe_text, mf_abi_request_query(&mf_returned))); }
static inline mf_text mf_request_authority(void) { return MF_ABI_RETURN(mf_text, mf_abi_request_authority(&mf_returned)); }
static inline mf_text mf_request_header(mf_text name) { return mf_text_of(MF_ABI_RETURN(mf_maybe_text, mf_abi_request_header(name.data, name.length, &mf_returned))); }
static inline mf_texts mf_request_headers(mf_text name) { return MF_ABI_RETURN(mf_texts, mf_abi_request_headers(name.data, name.length, &mf_returned)); }
static inline mf_texts mf_request_header_names(void) { return MF_ABI_RETURN(mf_texts, mf_abi_request_header_names(&mf_returned)); }
static inline mf_text mf_request_client(void) { return MF_ABI_RETURN(mf_text, mf_abi_request_client(&mf_returned)); }
static inline mf_text mf_request_peer(void) { return MF_ABI_RETURN(mf_text, mf_abi_request_peer(&mf_returned)); }
static inline mf_service_id mf_request_service(void) {
    struct { mf_text name; mf_maybe_text version; } id;
    mf_abi_request_service(&id);
    return (mf_service_id){id.name, mf_text_of(id.version)};
}
static inline mf_text mf_request_server(void) { return mf_text_of(MF_ABI_RETURN(mf_maybe_text, mf_abi_request_server(&mf_returned))); }
static inline void mf_request_set_header(mf_text name, mf_text value) { mf_abi_request_set_header(name.data, name.length, value.data, value.length); }
static inline void mf_request_add_header(mf_text name, mf_text value) { mf_abi_request_add_header(name.data, name.length, value.data, value.length); }
static inline void mf_request_remove_header(mf_text name) { mf_abi_request_remove_header(name.data, name.length); }
static inline void mf_request_set_path(mf_text path_and_query) { mf_abi_request_set_path(path_and_query.data, path_and_query.length); }

// The response at hand.
MF_IMPORT("response", "status") uint32_t mf_abi_response_status(void);
MF_IMPORT("response", "header") void mf_abi_response_header(const char *, size_t, mf_maybe_text *);
MF_IMPORT("response", "headers") void mf_abi_response_headers(const char *, size_t, mf_texts *);
MF_IMPORT("response", "header-names") void mf_abi_response_header_names(mf_texts *);
MF_IMPORT("response", "set-status") void mf_abi_response_set_status(uint32_t);
MF_IMPORT("response", "set-header") void mf_abi_response_set_header(const char *, size_t, const char *, size_t);
MF_IMPORT("response", "add-header") void mf_abi_response_add_header(const char *, size_t, const char *, size_t);
MF_IMPORT("response", "remove-header") void mf_abi_response_remove_header(const char *, size_t);

static inline uint16_t mf_response_status(void) { return (uint16_t)mf_abi_response_status(); }
static inline mf_text mf_response_header(mf_text name) { return mf_text_of(MF_ABI_RETURN(mf_maybe_text, mf_abi_response_header(name.data, name.length, &mf_returned))); }
static inline mf_texts mf_response_headers(mf_text name) { return MF_ABI_RETURN(mf_texts, mf_abi_response_headers(name.data, name.length, &mf_returned)); }
static inline mf_texts mf_response_header_names(void) { return MF_ABI_RETURN(mf_texts, mf_abi_response_header_names(&mf_returned)); }
static inline void mf_response_set_status(uint16_t status) { mf_abi_response_set_status(status); }
static inline void mf_response_set_header(mf_text name, mf_text value) { mf_abi_response_set_header(name.data, name.length, value.data, value.length); }
static inline void mf_response_add_header(mf_text name, mf_text value) { mf_abi_response_add_header(name.data, name.length, value.data, value.length); }
static inline void mf_response_remove_header(mf_text name) { mf_abi_response_remove_header(name.data, name.length); }

// The bodies of both. A plugin that uses these runs on the async lane.
typedef enum { MF_BODY_TOO_LARGE, MF_BODY_INCOMPLETE, MF_BODY_UNAVAILABLE, MF_BODY_OTHER, MF_BODY_OK } mf_body_outcome;
MF_IMPORT("request-body", "read") void mf_abi_request_body_read(uint64_t, mf_abi_result *);
MF_IMPORT("request-body", "replace") void mf_abi_request_body_replace(const char *, size_t, mf_abi_result *);
MF_IMPORT("response-body", "read") void mf_abi_response_body_read(uint64_t, mf_abi_result *);
MF_IMPORT("response-body", "replace") void mf_abi_response_body_replace(const char *, size_t, mf_abi_result *);

static inline mf_body_outcome mf_abi_body(mf_abi_result result) { return result.failed ? (mf_body_outcome)result.of.error.tag : MF_BODY_OK; }
static inline mf_body_outcome mf_request_body_read(uint64_t limit, mf_text *body) {
    mf_abi_result result = MF_ABI_RETURN(mf_abi_result, mf_abi_request_body_read(limit, &mf_returned));
    *body = result.failed ? MF_NONE : result.of.bytes;
    return mf_abi_body(result);
}
static inline mf_body_outcome mf_request_body_replace(mf_text body) { return mf_abi_body(MF_ABI_RETURN(mf_abi_result, mf_abi_request_body_replace(body.data, body.length, &mf_returned))); }
static inline mf_body_outcome mf_response_body_read(uint64_t limit, mf_text *body) {
    mf_abi_result result = MF_ABI_RETURN(mf_abi_result, mf_abi_response_body_read(limit, &mf_returned));
    *body = result.failed ? MF_NONE : result.of.bytes;
    return mf_abi_body(result);
}
static inline mf_body_outcome mf_response_body_replace(mf_text body) { return mf_abi_body(MF_ABI_RETURN(mf_abi_result, mf_abi_response_body_replace(body.data, body.length, &mf_returned))); }

// The event at hand.
MF_IMPORT("event", "topic") void mf_abi_event_topic(mf_text *);
MF_IMPORT("event", "payload") void mf_abi_event_payload(mf_text *);
MF_IMPORT("event", "attribute") void mf_abi_event_attribute(const char *, size_t, mf_maybe_text *);
MF_IMPORT("event", "client") void mf_abi_event_client(mf_text *);
MF_IMPORT("event", "set-payload") void mf_abi_event_set_payload(const char *, size_t);
MF_IMPORT("event", "set-attribute") void mf_abi_event_set_attribute(const char *, size_t, const char *, size_t);

static inline mf_text mf_event_topic(void) { return MF_ABI_RETURN(mf_text, mf_abi_event_topic(&mf_returned)); }
static inline mf_text mf_event_payload(void) { return MF_ABI_RETURN(mf_text, mf_abi_event_payload(&mf_returned)); }
static inline mf_text mf_event_attribute(mf_text name) { return mf_text_of(MF_ABI_RETURN(mf_maybe_text, mf_abi_event_attribute(name.data, name.length, &mf_returned))); }
static inline mf_text mf_event_client(void) { return MF_ABI_RETURN(mf_text, mf_abi_event_client(&mf_returned)); }
static inline void mf_event_set_payload(mf_text payload) { mf_abi_event_set_payload(payload.data, payload.length); }
static inline void mf_event_set_attribute(mf_text name, mf_text value) { mf_abi_event_set_attribute(name.data, name.length, value.data, value.length); }

// Whom a registrar may choose among.
typedef struct {
    mf_text id, uri;
    uint32_t weight;
    bool healthy;
    uint32_t in_flight;
    mf_pairs metadata;
} mf_server;
typedef struct { const mf_server *items; size_t count; } mf_servers;
_Static_assert(sizeof(mf_server) == 36, "as the canonical ABI lays it out");

MF_IMPORT("candidates", "least-loaded") void mf_abi_candidates_least_loaded(const mf_pair *, size_t, mf_maybe_text *);
MF_IMPORT("candidates", "servers") void mf_abi_candidates_servers(mf_servers *);
// The id of the server with the least to do, of those whose metadata has all of these pairs.
static inline mf_text mf_candidates_least_loaded(mf_pairs having) { return mf_text_of(MF_ABI_RETURN(mf_maybe_text, mf_abi_candidates_least_loaded(having.items, having.count, &mf_returned))); }
static inline mf_servers mf_candidates_servers(void) { return MF_ABI_RETURN(mf_servers, mf_abi_candidates_servers(&mf_returned)); }

// The router's log, what the operator configured, the time, chance.
typedef enum { MF_TRACE, MF_DEBUG, MF_INFO, MF_WARN, MF_ERROR } mf_level;
MF_IMPORT("log", "log") void mf_abi_log(uint32_t, const char *, size_t);
MF_IMPORT("config", "get") void mf_abi_config_get(const char *, size_t, mf_maybe_text *);
MF_IMPORT("config", "entries") void mf_abi_config_entries(mf_pairs *);
MF_IMPORT("clock", "now") uint64_t mf_clock_now(void);
MF_IMPORT("clock", "monotonic") uint64_t mf_clock_monotonic(void);
MF_IMPORT("random", "next") uint64_t mf_random_next(void);

// rand() and random() begin with the same numbers in every program that does not seed them: here each
// instance that draws from them seeds them first, unless it seeds them itself.
static bool mf_is_seeded;

static inline void mf_seed(void) {
    if (mf_is_seeded) return;
    mf_is_seeded = true;
    srand((unsigned)mf_random_next());
    srandom((unsigned)mf_random_next());
}

#define rand() (mf_seed(), (rand)())
#define random() (mf_seed(), (random)())
#define srand(seed) (mf_seed(), (srand)(seed))
#define srandom(seed) (mf_seed(), (srandom)(seed))

static inline void mf_log(mf_level level, mf_text message) { mf_abi_log(level, message.data, message.length); }
static inline mf_text mf_config_get(mf_text key) { return mf_text_of(MF_ABI_RETURN(mf_maybe_text, mf_abi_config_get(key.data, key.length, &mf_returned))); }
static inline mf_pairs mf_config_entries(void) { return MF_ABI_RETURN(mf_pairs, mf_abi_config_entries(&mf_returned)); }

// What the plugin remembers.
typedef enum { MF_STATE_FULL, MF_STATE_NOT_A_NUMBER, MF_STATE_OTHER, MF_STATE_OK } mf_state_outcome;
MF_IMPORT("state", "get") void mf_abi_state_get(const char *, size_t, mf_maybe_text *);
MF_IMPORT("state", "set") void mf_abi_state_set(const char *, size_t, const char *, size_t, mf_abi_result *);
MF_IMPORT("state", "delete") uint32_t mf_abi_state_delete(const char *, size_t);
MF_IMPORT("state", "swap") void mf_abi_state_swap(const char *, size_t, uint32_t, const char *, size_t, uint32_t, const char *, size_t, mf_abi_result *);
MF_IMPORT("state", "add") void mf_abi_state_add(const char *, size_t, int64_t, uint32_t, uint64_t, mf_abi_result *);
MF_IMPORT("state", "apply") void mf_abi_state_apply(const void *, size_t, const void *, size_t, mf_abi_result *);
MF_IMPORT("state", "scan") void mf_abi_state_scan(const char *, size_t, uint32_t, const char *, size_t, uint32_t, mf_pairs *);

static inline mf_state_outcome mf_abi_state(mf_abi_result result) { return result.failed ? (mf_state_outcome)result.of.error.tag : MF_STATE_OK; }
static inline mf_text mf_state_get(mf_text key) { return mf_text_of(MF_ABI_RETURN(mf_maybe_text, mf_abi_state_get(key.data, key.length, &mf_returned))); }
static inline mf_state_outcome mf_state_set(mf_text key, mf_text value) { return mf_abi_state(MF_ABI_RETURN(mf_abi_result, mf_abi_state_set(key.data, key.length, value.data, value.length, &mf_returned))); }
static inline bool mf_state_delete(mf_text key) { return mf_abi_state_delete(key.data, key.length) != 0; }
// MF_NONE for `expected`: absent; for `value`: delete.
static inline mf_state_outcome mf_state_swap(mf_text key, mf_text expected, mf_text value, bool *swapped) {
    mf_abi_result result;
    mf_abi_state_swap(key.data, key.length, mf_is_some(expected), expected.data, expected.length, mf_is_some(value), value.data, value.length, &result);
    *swapped = !result.failed && result.of.flag;
    return mf_abi_state(result);
}
// Without a time to live: 0.
static inline mf_state_outcome mf_state_add(mf_text key, int64_t amount, uint64_t ttl_ms, int64_t *sum) {
    mf_abi_result result;
    mf_abi_state_add(key.data, key.length, amount, ttl_ms != 0, ttl_ms, &result);
    *sum = result.failed ? 0 : result.of.number;
    return mf_abi_state(result);
}
typedef struct { mf_text key; mf_maybe_text value; } mf_abi_cell;
static inline mf_abi_cell *mf_abi_cells(mf_pairs pairs) {
    mf_abi_cell *cells = mf_allocate(pairs.count * sizeof(mf_abi_cell), 4);
    for (size_t at = 0; at < pairs.count; at++)
        cells[at] = (mf_abi_cell){pairs.items[at].key, mf_some(pairs.items[at].value)};
    return cells;
}
// All of these changes (at most 256) if everything expected is what is there; MF_NONE as above.
static inline mf_state_outcome mf_state_apply(mf_pairs changes, mf_pairs expected, bool *applied) {
    mf_abi_result result;
    mf_abi_state_apply(mf_abi_cells(changes), changes.count, mf_abi_cells(expected), expected.count, &result);
    *applied = !result.failed && result.of.flag;
    return mf_abi_state(result);
}
static inline mf_pairs mf_state_scan(mf_text prefix, mf_text after, uint32_t limit) {
    return MF_ABI_RETURN(mf_pairs, mf_abi_state_scan(prefix.data, prefix.length, mf_is_some(after), after.data, after.length, limit, &mf_returned));
}

// An etcd cluster, with `grant = ["etcd"]`. A plugin that uses these runs on the async lane.
// Without `end`, the one key `start`.
typedef struct { mf_text start; mf_maybe_text end; } mf_key_range;
typedef struct { mf_text key, value; uint64_t modified, version; } mf_key_value;
typedef struct { uint8_t some; mf_key_value value; } mf_maybe_key_value;
typedef struct {
    uint8_t tag; // 0: `modified`, 1: `none_modified_after`
    union { struct { mf_text key; uint64_t revision; } modified; struct { mf_key_range keys; uint64_t revision; } none_modified_after; } of;
} mf_comparison;
typedef struct {
    uint8_t tag; // 0: `put`, 1: `delete`, 2: `get`
    union { struct { mf_text key, value; bool leased; } put; mf_key_range delete; mf_text get; } of;
} mf_operation;
typedef struct { mf_text key; mf_maybe_text value; uint64_t revision, version; } mf_key_event;

typedef struct { const mf_comparison *items; size_t count; } mf_comparisons;
typedef struct { const mf_operation *items; size_t count; } mf_operations;
typedef struct { struct { const mf_key_value *items; size_t count; } entries; bool more; uint64_t revision; } mf_page;
typedef struct { bool succeeded; struct { const mf_maybe_key_value *items; size_t count; } found; uint64_t revision; } mf_transacted;
typedef struct { struct { const mf_key_event *items; size_t count; } events; uint64_t revision; } mf_batch;

typedef enum { MF_ETCD_UNAVAILABLE, MF_ETCD_COMPACTED, MF_ETCD_DENIED, MF_ETCD_INVALID, MF_ETCD_OTHER } mf_etcd_cause;
typedef struct { uint8_t cause; union { mf_text text; uint64_t revision; } of; } mf_etcd_error;
typedef struct { uint8_t failed; union { mf_page ok; mf_etcd_error error; } of; } mf_etcd_page;
typedef struct { uint8_t failed; union { mf_transacted ok; mf_etcd_error error; } of; } mf_etcd_transacted;
typedef struct { uint8_t failed; union { mf_batch ok; mf_etcd_error error; } of; } mf_etcd_batch;
_Static_assert(sizeof(mf_comparison) == 40 && sizeof(mf_operation) == 24, "as the canonical ABI lays them out");
_Static_assert(sizeof(mf_maybe_key_value) == 40 && sizeof(mf_key_event) == 40, "as the canonical ABI lays them out");
_Static_assert(sizeof(mf_etcd_page) == 32 && sizeof(mf_etcd_transacted) == 32, "as the canonical ABI lays them out");

MF_IMPORT("etcd", "get") void mf_abi_etcd_get(const char *, size_t, uint32_t, const char *, size_t, uint32_t, uint32_t, uint64_t, mf_etcd_page *);
MF_IMPORT("etcd", "transact") void mf_abi_etcd_transact(const mf_comparison *, size_t, const mf_operation *, size_t, const mf_operation *, size_t, mf_etcd_transacted *);
MF_IMPORT("etcd", "next") void mf_abi_etcd_next(const char *, size_t, uint32_t, const char *, size_t, uint64_t, uint32_t, mf_etcd_batch *);

// At an earlier revision, or with 0 at the latest.
static inline mf_etcd_page mf_etcd_get(mf_key_range keys, uint32_t limit, uint64_t at) {
    mf_etcd_page page;
    mf_abi_etcd_get(keys.start.data, keys.start.length, keys.end.some, keys.end.text.data, keys.end.text.length, limit, at != 0, at, &page);
    return page;
}
static inline mf_etcd_transacted mf_etcd_transact(mf_comparisons compare, mf_operations then, mf_operations otherwise) {
    return MF_ABI_RETURN(mf_etcd_transacted, mf_abi_etcd_transact(compare.items, compare.count, then.items, then.count, otherwise.items, otherwise.count, &mf_returned));
}
static inline mf_etcd_batch mf_etcd_next(mf_key_range keys, uint64_t after, uint32_t timeout_ms) {
    mf_etcd_batch batch;
    mf_abi_etcd_next(keys.start.data, keys.start.length, keys.end.some, keys.end.text.data, keys.end.text.length, after, timeout_ms, &batch);
    return batch;
}

// A call begins with what the host hands over for it, if it hands over anything, and what lies on
// the pile goes then: not before, as the host still reads the answer of the call before.
static uintptr_t mf_abi_first, mf_abi_next;
static bool mf_abi_ended;
static inline void mf_abi_begin(void) {
    if (mf_abi_ended) mf_abi_next = mf_abi_first;
    mf_abi_ended = false;
}

// ---- what a plugin gives ------------------------------------------------------------------------

// An answer of any exported function, as the canonical ABI lays out the longest of them.
typedef struct {
    uint8_t failed;
    union {
        mf_text error;
        struct { uint8_t tag; union { mf_text text; struct { uint16_t status; mf_text reason; } rejection; } of; } ok;
    } of;
} mf_answer;

// The call fails, with a text for the operator.
static inline mf_answer mf_error(mf_text text) { return (mf_answer){.failed = 1, .of.error = text}; }

// A registrar's: a server's id or URI; no opinion; an answer to the client in place of a server's.
static inline mf_answer mf_server_named(mf_text id) { return (mf_answer){.of.ok = {.tag = 0, .of.text = id}}; }
static inline mf_answer mf_pass(void) { return (mf_answer){.of.ok = {.tag = 1}}; }
static inline mf_answer mf_reject(uint16_t status, mf_text reason) { return (mf_answer){.of.ok = {.tag = 2, .of.rejection = {status, reason}}}; }

// A request filter's: send it on; answer it.
static inline mf_answer mf_forward(void) { return (mf_answer){.of.ok = {.tag = 0}}; }
static inline mf_answer mf_respond(uint16_t status, mf_text reason) { return (mf_answer){.of.ok = {.tag = 1, .of.rejection = {status, reason}}}; }

// A response filter's, and `lifecycle.start`'s.
static inline mf_answer mf_done(void) { return (mf_answer){0}; }

// An event filter's.
static inline mf_answer mf_accept(void) { return (mf_answer){.of.ok = {.tag = 0}}; }
static inline mf_answer mf_drop(void) { return (mf_answer){.of.ok = {.tag = 1}}; }
static inline mf_answer mf_redirect(mf_text topic) { return (mf_answer){.of.ok = {.tag = 2, .of.text = topic}}; }
static inline mf_answer mf_refuse(mf_text reason) { return (mf_answer){.of.ok = {.tag = 3, .of.text = reason}}; }

// Makes a function `mf_answer name(void)` the plugin's.
#define MF_REGISTRAR(function) MF_ABI_EXPORT("registrar@0.1.0#resolve", mf_abi_resolve, function)
#define MF_REQUEST_FILTER(function) MF_ABI_EXPORT("request-filter@0.1.0#on-request", mf_abi_on_request, function)
#define MF_RESPONSE_FILTER(function) MF_ABI_EXPORT("response-filter@0.1.0#on-response", mf_abi_on_response, function)
#define MF_EVENT_FILTER(function) MF_ABI_EXPORT("event-filter@0.1.0#on-event", mf_abi_on_event, function)
#define MF_LIFECYCLE(function) MF_ABI_EXPORT("lifecycle@0.1.0#start", mf_abi_start, function)

#define MF_ABI_EXPORT(name, symbol, function)                                                  \
    __attribute__((export_name("message-flow:plugin/" name))) const mf_answer *symbol(void) { \
        static mf_answer answer;                                                               \
        mf_abi_begin();                                                                        \
        answer = function();                                                                   \
        mf_abi_ended = true;                                                                   \
        return &answer;                                                                        \
    }

// ---- a routing-table adapter ----------------------------------------------------------------------

typedef struct { mf_text kind, key, value; } mf_entry;
typedef struct { mf_text kind, key; mf_maybe_text value; bool ephemeral; } mf_change;
typedef struct { const mf_change *items; size_t count; } mf_changes;
typedef struct { struct { const mf_entry *items; size_t count; } entries; uint64_t revision; } mf_snapshot;
typedef struct { mf_changes changes; uint64_t revision; } mf_change_set;
typedef struct { mf_text server; mf_maybe_number expires; mf_text router; uint64_t stamp; } mf_assignment;
typedef struct { uint8_t some; mf_assignment assignment; } mf_maybe_assignment;
typedef struct { mf_text service; mf_assignment assignment; } mf_assigned_service;
typedef struct { mf_maybe_text router; struct { const mf_assigned_service *items; size_t count; } assignments; } mf_client_record;
typedef struct { mf_text client, service, server; mf_maybe_number expires; mf_text router; } mf_proposal;
typedef enum { MF_IF_ABSENT, MF_IF_UNCHANGED, MF_ALWAYS } mf_condition;
_Static_assert(sizeof(mf_change) == 32 && sizeof(mf_assignment) == 40, "as the canonical ABI lays them out");
_Static_assert(sizeof(mf_client_record) == 20 && sizeof(mf_assigned_service) == 48, "as the canonical ABI lays them out");

typedef enum { MF_TABLE_UNAVAILABLE, MF_TABLE_COMPACTED, MF_TABLE_CONFLICT, MF_TABLE_REFUSED, MF_TABLE_INVALID, MF_TABLE_OTHER } mf_table_cause;
// With a text, and MF_TABLE_CONFLICT with a revision.
typedef struct { uint8_t cause; union { mf_text text; uint64_t revision; } of; } mf_table_error;
// Either what was asked for, or with `failed` the error: (mf_table_read){.of.ok = {…}}, or
// (mf_table_read){MF_TABLE_FAILED(MF_TABLE_UNAVAILABLE, MF_TEXT("…"))}.
#define MF_TABLE_FAILED(why, said) .failed = 1, .of.error = {.cause = why, .of.text = said}
#define MF_TABLE_CONFLICTS(at) .failed = 1, .of.error = {.cause = MF_TABLE_CONFLICT, .of.revision = at}
typedef struct { uint8_t failed; union { mf_snapshot ok; mf_table_error error; } of; } mf_table_read;
typedef struct { uint8_t failed; union { mf_change_set ok; mf_table_error error; } of; } mf_table_changes;
typedef struct { uint8_t failed; union { uint64_t ok; mf_table_error error; } of; } mf_table_revision;
typedef struct { uint8_t failed; union { mf_maybe_assignment ok; mf_table_error error; } of; } mf_table_assignment;
typedef struct { uint8_t failed; union { mf_client_record ok; mf_table_error error; } of; } mf_table_client;
typedef struct { uint8_t failed; union { uint32_t ok; mf_table_error error; } of; } mf_table_count;
typedef struct { uint8_t failed; union { mf_table_error error; } of; } mf_table_done;

// The functions of wit/routing-table.wit, by their names. `stamp` belongs to MF_IF_UNCHANGED.
typedef struct {
    mf_table_read (*read)(void);
    mf_table_changes (*changes)(uint64_t after);
    mf_table_revision (*write)(mf_changes changes, mf_maybe_number expect);
    mf_table_assignment (*assigned)(mf_text client, mf_text service);
    mf_table_assignment (*assign)(mf_proposal proposal, mf_condition condition, uint64_t stamp);
    mf_table_done (*forget)(mf_text client, mf_text service);
    mf_table_client (*client)(mf_text client);
    mf_table_done (*locate)(mf_text client, mf_maybe_text router);
    mf_table_count (*sweep)(uint64_t now, uint32_t limit);
} mf_routing_table;

// Makes functions the plugin's: static const mf_routing_table table = {…}; MF_ROUTING_TABLE(table)
#define MF_ROUTING_TABLE(table)                                                                                                                   \
    MF_ABI_TABLE("read", mf_table_read, mf_abi_table_read, (void), table.read())                                                                  \
    MF_ABI_TABLE("changes", mf_table_changes, mf_abi_table_changes, (uint64_t after), table.changes(after))                                       \
    MF_ABI_TABLE("write", mf_table_revision, mf_abi_table_write, (const mf_change *items, size_t count, uint32_t some, uint64_t number),          \
                 table.write((mf_changes){items, count}, (mf_maybe_number){some, number}))                                                        \
    MF_ABI_TABLE("assigned", mf_table_assignment, mf_abi_table_assigned, (const char *client, size_t client_length, const char *service, size_t service_length), \
                 table.assigned((mf_text){client, client_length}, (mf_text){service, service_length}))                                            \
    MF_ABI_TABLE("assign", mf_table_assignment, mf_abi_table_assign,                                                                              \
                 (const char *client, size_t client_length, const char *service, size_t service_length, const char *server, size_t server_length, \
                  uint32_t expires, uint64_t when, const char *router, size_t router_length, uint32_t condition, uint64_t stamp),                 \
                 table.assign((mf_proposal){{client, client_length}, {service, service_length}, {server, server_length}, {expires, when}, {router, router_length}}, (mf_condition)condition, stamp)) \
    MF_ABI_TABLE("forget", mf_table_done, mf_abi_table_forget, (const char *client, size_t client_length, const char *service, size_t service_length), \
                 table.forget((mf_text){client, client_length}, (mf_text){service, service_length}))                                              \
    MF_ABI_TABLE("client", mf_table_client, mf_abi_table_client, (const char *client, size_t length), table.client((mf_text){client, length}))    \
    MF_ABI_TABLE("locate", mf_table_done, mf_abi_table_locate, (const char *client, size_t length, uint32_t some, const char *router, size_t router_length), \
                 table.locate((mf_text){client, length}, (mf_maybe_text){some, {router, router_length}}))                                         \
    MF_ABI_TABLE("sweep", mf_table_count, mf_abi_table_sweep, (uint64_t now, uint32_t limit), table.sweep(now, limit))

#define MF_ABI_TABLE(name, type, symbol, parameters, call)                                                                                   \
    __attribute__((export_name("message-flow:plugin/routing-table@0.1.0#" name))) const type *symbol parameters {                            \
        static type answer;                                                                                                                  \
        mf_abi_begin();                                                                                                                      \
        answer = call;                                                                                                                       \
        mf_abi_ended = true;                                                                                                                 \
        return &answer;                                                                                                                      \
    }

// ---- memory: a pile that each call begins anew ----------------------------------------------------


#ifndef MF_NO_ALLOCATOR
// A pile of its own, beside malloc's: what it takes from the system is taken once and used again.
#define MF_ABI_PAGE ((uintptr_t)65536)
static uintptr_t mf_abi_end;

void *mf_allocate(size_t size, size_t align) {
    uintptr_t start = (mf_abi_next + align - 1) & ~(uintptr_t)(align - 1);
    if (start < mf_abi_next || size > UINTPTR_MAX - MF_ABI_PAGE - start) __builtin_trap();
    if (start + size > mf_abi_end) {
        // Whoever else grew the memory since then has what lies behind: begin again there.
        if ((uintptr_t)__builtin_wasm_memory_size(0) * MF_ABI_PAGE != mf_abi_end) {
            start = (uintptr_t)__builtin_wasm_memory_size(0) * MF_ABI_PAGE;
            mf_abi_first = mf_abi_end = start;
        }
        uintptr_t pages = (start + size - mf_abi_end + MF_ABI_PAGE - 1) / MF_ABI_PAGE;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) __builtin_trap();
        mf_abi_end += pages * MF_ABI_PAGE;
    }
    mf_abi_next = start + size;
    return (void *)start;
}

// Called by the host for what it hands out.
__attribute__((export_name("cabi_realloc"))) void *mf_abi_realloc(void *before, size_t had, size_t align, size_t size) {
    mf_abi_begin();
    char *after = mf_allocate(size, align);
    for (size_t at = 0; at < had && at < size; at++) after[at] = ((const char *)before)[at];
    return after;
}
#endif

#endif
