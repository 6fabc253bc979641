"""A filter that fails in the way that the header `fault` names."""

import sys

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.request_filter import Verdict_Forward, Verdict_Respond
from wit_world.imports import request
from wit_world.imports.types import Rejection


class RequestFilter(exports.RequestFilter):
    def on_request(self):
        match request.header("fault"):
            case "throw":
                raise ValueError("told to throw")
            case "error":
                raise Err("told to err")
            case "exit":
                sys.exit(3)
            case "loop":
                while True:
                    pass
            case "allocate":
                hoard = []
                while True:
                    hoard.append(bytes([1]) * (1 << 20))
            case "recurse":
                recurse(1)
            case "nonsense":
                return 42
            case "nothing":
                return None
            case "within":
                return Verdict_Respond(Rejection("teapot", "told to"))
        request.set_header("faulty", "fine")
        return Verdict_Forward()


def recurse(depth):
    return recurse(depth + 1) + depth
