"""A registrar that reads one header and the client id and answers: what a call costs at least."""

from wit_world import exports
from wit_world.exports.registrar import Decision_Pass, Decision_Server
from wit_world.imports import request


class Registrar(exports.Registrar):
    def resolve(self):
        region = request.header("region")
        if region is None:
            return Decision_Pass()
        return Decision_Server("far" if len(request.client()) + len(region) > 64 else "near")
