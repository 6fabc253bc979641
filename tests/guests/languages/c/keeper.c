// A filter that keeps what the header `keep` says in etcd and in its state, and tells what it finds.

#include "message-flow.h"

static const mf_text KEY = {"/keeper/last", 12};

static mf_answer on_request(void) {
    mf_text kept = mf_request_header(MF_TEXT("keep"));
    if (!mf_is_some(kept)) return mf_forward();
    mf_comparison none_later = {.tag = 1, .of.none_modified_after = {{KEY, {0}}, INT64_MAX}};
    mf_operation then[] = {{.tag = 0, .of.put = {KEY, kept, false}}, {.tag = 2, .of.get = KEY}};
    mf_etcd_transacted done = mf_etcd_transact((mf_comparisons){&none_later, 1}, (mf_operations){then, 2}, (mf_operations){0, 0});
    if (done.failed) return mf_error(done.of.error.cause == MF_ETCD_COMPACTED ? MF_TEXT("compacted") : done.of.error.of.text);
    if (!done.of.ok.succeeded || done.of.ok.found.count != 1) return mf_error(MF_TEXT("it was changed meanwhile"));
    mf_request_set_header(MF_TEXT("found"), done.of.ok.found.items[0].value.value);
    mf_etcd_page page = mf_etcd_get((mf_key_range){KEY, mf_some(MF_TEXT("/keeper/m"))}, 10, done.of.ok.revision);
    if (page.failed || page.of.ok.entries.count != 1 || page.of.ok.more) return mf_error(MF_TEXT("no such page"));
    mf_request_set_header(MF_TEXT("listed"), page.of.ok.entries.items[0].value);
    mf_etcd_batch batch = mf_etcd_next((mf_key_range){KEY, {0}}, done.of.ok.revision - 1, 1000);
    if (batch.failed || batch.of.ok.events.count < 1) return mf_error(MF_TEXT("no such batch"));
    mf_request_set_header(MF_TEXT("told"), batch.of.ok.events.items[0].value.text);
    bool first, second;
    mf_pairs changes = MF_PAIRS({MF_TEXT("a"), kept}, {MF_TEXT("b"), kept});
    mf_state_apply(changes, MF_PAIRS({MF_TEXT("a"), MF_NONE}), &first);
    mf_state_apply(changes, MF_PAIRS({MF_TEXT("a"), MF_NONE}), &second);
    mf_request_set_header(MF_TEXT("applied"), first && !second ? mf_state_get(MF_TEXT("b")) : MF_TEXT("wrong"));
    return mf_forward();
}

MF_REQUEST_FILTER(on_request)
