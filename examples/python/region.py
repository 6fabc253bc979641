"""A registrar that keeps clients in their region.

Among the servers of the client's region, else among all, it takes the one with the least to do.
Between equals each client has its own favourite.
"""

from functools import cmp_to_key
from zlib import crc32

import message_flow
from wit_world import exports
from wit_world.exports.registrar import Decision_Pass, Decision_Server
from wit_world.imports import candidates, config, request


class Registrar(exports.Registrar):
    def resolve(self):
        region = request.header(config.get("header") or "region")
        servers = [server for server in candidates.servers() if server.weight > 0]
        near = [server for server in servers if region and ("region", region) in server.metadata]
        chosen = least_loaded(near or servers)
        return Decision_Server(chosen.id) if chosen else Decision_Pass()


def least_loaded(servers):
    """Healthy ones first, then by messages under way for each unit of weight."""
    if not servers:
        return None
    best = min(servers, key=cmp_to_key(compare))
    equals = [server for server in servers if compare(server, best) == 0]
    if len(equals) == 1:
        return best
    client = request.client()
    # The same at every router.
    return max(equals, key=lambda server: crc32(f"{client} {server.id}".encode()))


def compare(one, other):
    if one.healthy != other.healthy:
        return -1 if one.healthy else 1
    return one.in_flight * other.weight - other.in_flight * one.weight
