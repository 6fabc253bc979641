// A filter that gives each request an `x-request-id`, unless it brought one, and puts the same into
// its response.

#include "message-flow.h"

static mf_text name(void) {
    mf_text configured = mf_config_get(MF_TEXT("header"));
    return mf_is_some(configured) ? configured : MF_TEXT("x-request-id");
}

// An id that a client brings goes into every log, so it has to look like one.
static bool is_id(mf_text text) {
    for (size_t at = 0; at < text.length; at++)
        if (text.data[at] < '!' || text.data[at] > '~') return false;
    return text.length >= 1 && text.length <= 128;
}

static mf_text fresh_id(void) {
    static char digits[16];
    uint64_t bits = mf_random_next();
    for (int at = 15; at >= 0; at--, bits >>= 4) digits[at] = "0123456789abcdef"[bits & 15];
    return (mf_text){digits, sizeof digits};
}

static mf_answer on_request(void) {
    if (!is_id(mf_request_header(name()))) mf_request_set_header(name(), fresh_id());
    return mf_forward();
}

static mf_answer on_response(void) {
    mf_text id = mf_request_header(name());
    if (mf_is_some(id)) mf_response_set_header(name(), id);
    return mf_done();
}

MF_REQUEST_FILTER(on_request)
MF_RESPONSE_FILTER(on_response)
