"""A filter that draws a number and a token, looks at the time, sleeps, and prints."""

import random
import sys
import time
import uuid

from wit_world import exports
from wit_world.exports.request_filter import Verdict_Forward
from wit_world.imports import request

seen_at_build = time.time()


class RequestFilter(exports.RequestFilter):
    def on_request(self):
        request.add_header("chance", str(random.random()))
        request.add_header("token", str(uuid.uuid4()))
        began = time.monotonic()
        time.sleep(0.002)
        slept = time.monotonic() - began >= 0.002
        request.set_header("time", str(int(time.time() * 1000)))
        print("it printed", str(slept and time.time() > seen_at_build).lower())
        print("it complained", file=sys.stderr)
        return Verdict_Forward()
