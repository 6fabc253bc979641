// A routing-table adapter that keeps nothing: its answers show that everything crosses as it is.

#include "message-flow.h"

static mf_assignment assignment(mf_text server) {
    return (mf_assignment){.server = server, .expires = {1, 1000}, .router = MF_TEXT("r1"), .stamp = 5};
}

static mf_table_read read_all(void) {
    static const mf_entry entries[] = {
        {{"service", 7}, {"chat", 4}, {"{}", 2}},
        {{"router", 6}, {"r1", 2}, {"{\"a\":1}", 7}},
    };
    return (mf_table_read){.of.ok = {{entries, 2}, 7}};
}

static mf_table_changes changes(uint64_t after) {
    static const mf_change some[] = {
        {{"service", 7}, {"chat", 4}, {1, {"{}", 2}}, true},
        {{"service", 7}, {"gone", 4}, {0}, false},
    };
    if (after == 1) return (mf_table_changes){MF_TABLE_FAILED(MF_TABLE_COMPACTED, MF_NONE)};
    return (mf_table_changes){.of.ok = {{some, 2}, after + 2}};
}

static mf_table_revision write(mf_changes changes, mf_maybe_number expect) {
    if (expect.some) return (mf_table_revision){MF_TABLE_CONFLICTS(expect.number + 1)};
    uint64_t weight = 0;
    for (size_t at = 0; at < changes.count; at++)
        weight += changes.items[at].key.length + changes.items[at].value.some * 100 + changes.items[at].ephemeral * 1000;
    return (mf_table_revision){.of.ok = weight};
}

static mf_table_assignment assigned(mf_text client, mf_text service) {
    if (!mf_equal(service, MF_TEXT("chat"))) return (mf_table_assignment){.of.ok = {0}};
    return (mf_table_assignment){.of.ok = {1, assignment(client)}};
}

static mf_table_assignment assign(mf_proposal proposal, mf_condition condition, uint64_t stamp) {
    mf_assignment made = {proposal.server, proposal.expires, proposal.router, condition == MF_IF_UNCHANGED ? stamp : 0};
    return (mf_table_assignment){.of.ok = {1, made}};
}

static mf_table_done forget(mf_text client, mf_text service) {
    if (client.length + service.length > 7) return (mf_table_done){MF_TABLE_FAILED(MF_TABLE_REFUSED, MF_TEXT("told to refuse"))};
    return (mf_table_done){0};
}

static mf_table_client client(mf_text name) {
    mf_assigned_service *of = mf_allocate(sizeof *of, 8);
    *of = (mf_assigned_service){MF_TEXT("chat"), assignment(name)};
    return (mf_table_client){.of.ok = {mf_some(MF_TEXT("r1")), {of, 1}}};
}

static mf_table_done locate(mf_text name, mf_maybe_text router) {
    if (!router.some) return (mf_table_done){0};
    return (mf_table_done){MF_TABLE_FAILED(MF_TABLE_INVALID, mf_equal(name, router.text) ? MF_TEXT("same") : router.text)};
}

static mf_table_count sweep(uint64_t now, uint32_t limit) { return (mf_table_count){.of.ok = (uint32_t)now + limit}; }

static const mf_routing_table table = {read_all, changes, write, assigned, assign, forget, client, locate, sweep};
MF_ROUTING_TABLE(table)
