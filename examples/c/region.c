// A registrar that keeps clients in their region: among the servers of the client's region, else
// among all, the one with the least to do. Between equals each client has its own favourite.

#include "message-flow.h"

static mf_answer resolve(void) {
    mf_text header = mf_config_get(MF_TEXT("header"));
    mf_text region = mf_request_header(mf_is_some(header) ? header : MF_TEXT("region"));
    mf_text chosen = MF_NONE;
    if (mf_is_some(region)) chosen = mf_candidates_least_loaded(MF_PAIRS({MF_TEXT("region"), region}));
    if (!mf_is_some(chosen)) chosen = mf_candidates_least_loaded(MF_NO_PAIRS);
    return mf_is_some(chosen) ? mf_server_named(chosen) : mf_pass();
}

MF_REGISTRAR(resolve)
