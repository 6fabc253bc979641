"""A registrar that keeps clients in their region.

Among the servers of the client's region, else among all, it takes the one with the least to do.
Between equals each client has its own favourite.
"""

from functools import cache

from wit_world import exports
from wit_world.exports.registrar import Decision_Pass, Decision_Server
from wit_world.imports import candidates, config, request


class Registrar(exports.Registrar):
    def resolve(self):
        region = request.header(header())
        near = candidates.least_loaded([("region", region)]) if region else None
        chosen = near or candidates.least_loaded([])
        return Decision_Server(chosen) if chosen else Decision_Pass()


@cache
def header():
    """Which header says where a client is. What is configured stays while an instance lives."""
    return config.get("header") or "region"
