// A filter that fails in the way that the header `fault` names.

#pragma clang diagnostic ignored "-Winfinite-recursion"

#include <stdlib.h>

#include "message-flow.h"

__attribute__((noinline)) static int recurse(volatile int *depth) {
    volatile int here = *depth + 1;
    return recurse(&here) + here;
}

static mf_answer on_request(void) {
    mf_text fault = mf_request_header(MF_TEXT("fault"));
    volatile int depth = 0;
    if (mf_equal(fault, MF_TEXT("throw"))) abort();
    if (mf_equal(fault, MF_TEXT("error"))) return mf_error(MF_TEXT("told to err"));
    if (mf_equal(fault, MF_TEXT("exit"))) exit(3);
    if (mf_equal(fault, MF_TEXT("loop")))
        while (!depth) {}
    if (mf_equal(fault, MF_TEXT("allocate")))
        for (;;) *(volatile char *)mf_allocate(1 << 20, 1) = 1;
    if (mf_equal(fault, MF_TEXT("recurse"))) return recurse(&depth) ? mf_forward() : mf_done();
    if (mf_equal(fault, MF_TEXT("nonsense"))) return (mf_answer){.of.ok = {.tag = 9}};
    mf_request_set_header(MF_TEXT("faulty"), MF_TEXT("fine"));
    return mf_forward();
}

MF_REQUEST_FILTER(on_request)
