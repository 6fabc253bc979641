// An event filter: empty orders are dropped, large ones go to a topic of their own, all others are
// marked.

#include "message-flow.h"

static mf_answer on_event(void) {
    mf_text payload = mf_event_payload();
    if (!mf_equal(mf_event_topic(), MF_TEXT("orders"))) return mf_refuse(MF_TEXT("orders only"));
    if (payload.length == 0) return mf_drop();
    if (payload.length > 10) return mf_redirect(MF_TEXT("orders.large"));
    mf_event_set_attribute(MF_TEXT("seen-by"), mf_event_client());
    if (!mf_is_some(mf_event_attribute(MF_TEXT("raw")))) mf_event_set_payload(MF_TEXT("marked"));
    return mf_accept();
}

MF_EVENT_FILTER(on_event)
