// A filter that draws a number, looks at the time, and prints.

#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#include "message-flow.h"

static mf_answer on_request(void) {
    char text[64];
    size_t length = snprintf(text, sizeof text, "%d.%ld.%d", rand(), random(), rand());
    mf_request_add_header(MF_TEXT("chance"), (mf_text){text, length});
    unsigned char bits[8];
    arc4random_buf(bits, sizeof bits);
    length = 0;
    for (size_t at = 0; at < sizeof bits; at++) length += snprintf(text + length, 3, "%02x", bits[at]);
    mf_request_add_header(MF_TEXT("token"), (mf_text){text, length});
    struct timeval now;
    gettimeofday(&now, NULL);
    length = snprintf(text, sizeof text, "%lld", now.tv_sec * 1000LL + now.tv_usec / 1000);
    mf_request_set_header(MF_TEXT("time"), (mf_text){text, length});
    printf("it printed true\n");
    fprintf(stderr, "it complained\n");
    return mf_forward();
}

MF_REQUEST_FILTER(on_request)
