// A registrar that reads one header and the client id and answers: what a call costs at least.

#include "message-flow.h"

static mf_answer resolve(void) {
    mf_text region = mf_request_header(MF_TEXT("region"));
    mf_text client = mf_request_client();
    return mf_server_named(client.length + region.length > 64 ? MF_TEXT("far") : MF_TEXT("near"));
}

MF_REGISTRAR(resolve)
