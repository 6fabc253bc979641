"""A filter that stamps messages, so that one can be followed from log to log.

Each request gets an `x-request-id`, unless it brought one, and its response gets the same.
"""

from wit_world import exports
from wit_world.exports.request_filter import Verdict_Forward
from wit_world.imports import config, random, request, response


class RequestFilter(exports.RequestFilter):
    def on_request(self):
        if not is_id(request.header(name())):
            request.set_header(name(), f"{random.next():016x}")
        return Verdict_Forward()


class ResponseFilter(exports.ResponseFilter):
    def on_response(self):
        if stamp := request.header(name()):
            response.set_header(name(), stamp)


def name():
    return config.get("header") or "x-request-id"


def is_id(text):
    """An id that a client brings goes into every log, so it has to look like one."""
    return text is not None and 1 <= len(text) <= 128 and all("!" <= letter <= "~" for letter in text)
