"""The client against a router that says what each test wants, over real sockets."""

import asyncio
import json
import unittest
from contextlib import asynccontextmanager

from websockets.asyncio.server import serve

from message_flow_client import Backoff, Lost, Refused, Required, Service

DEFINITION = {"name": "killer-robot", "port": 9878, "requires": ["explosion-service"]}
EXPLOSION = {"name": "explosion-service", "port": 8003, "host": "10.9.8.10"}


class Router:
    """A router whose connections a test takes one after the other."""

    def __init__(self):
        self.connections = asyncio.Queue()

    async def handle(self, connection):
        await self.connections.put(connection)
        await connection.wait_closed()

    async def accept(self):
        return await asyncio.wait_for(self.connections.get(), 10)


@asynccontextmanager
async def running():
    router = Router()
    async with serve(router.handle, "127.0.0.1", 0) as server:
        router.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield router


async def heard(connection):
    return json.loads(await asyncio.wait_for(connection.recv(), 10))


async def say(connection, **message):
    await connection.send(json.dumps(message))


def quick():
    return Backoff(first=0.001, longest=0.02)


async def following(service):
    return await asyncio.wait_for(anext(aiter(service)), 10)


class ServiceTest(unittest.IsolatedAsyncioTestCase):
    async def test_says_who_it_is_and_passes_on_what_it_is_told(self):
        async with running() as router, Service(router.url, token="secret", **DEFINITION) as service:
            connection = await router.accept()
            self.assertEqual(await heard(connection), DEFINITION)
            self.assertEqual(connection.request.path, "/v1/connect")
            self.assertEqual(connection.request.headers["Authorization"], "Bearer secret")
            await connection.send("no JSON")
            await say(connection, type="from-the-future")
            await say(connection, type="required-service", payload=EXPLOSION)
            await say(connection, type="required-service-lost", payload={"name": "explosion-service"})
            await say(connection, type="error", payload={"code": "invalid", "reason": "a port is a number"})
            self.assertEqual(await following(service), Required("explosion-service", "10.9.8.10", 8003, EXPLOSION))
            self.assertEqual(await following(service), Lost("explosion-service", {"name": "explosion-service"}))
            self.assertEqual(await following(service), Refused("invalid", "a port is a number"))

    async def test_changes_what_it_needs(self):
        async with running() as router, Service(router.url, **DEFINITION) as service:
            connection = await router.accept()
            await heard(connection)
            await service.require("carchase-service", "explosion-service")
            self.assertEqual((await heard(connection))["requires"], ["explosion-service", "carchase-service"])
            await service.release("explosion-service")
            self.assertEqual(await heard(connection), DEFINITION | {"requires": ["carchase-service"]})

    async def test_comes_back_and_says_what_it_saw_last(self):
        async with running() as router, Service(router.url, backoff=quick(), **DEFINITION) as service:
            first = await router.accept()
            await heard(first)
            await say(first, type="required-service", payload=EXPLOSION, revision=7)
            await following(service)
            await say(first, type="required-service-lost", payload={"name": "explosion-service", "revision": 9})
            await following(service)
            await service.require("carchase-service")
            first.transport.abort()
            second = await router.accept()
            definition = await heard(second)
            self.assertEqual(definition["since"], 9)
            self.assertEqual(definition["requires"], ["explosion-service", "carchase-service"])

    async def test_keeps_the_highest_revision_and_says_of_what_it_knows_nothing(self):
        async with running() as router, Service(router.url, backoff=quick(), **DEFINITION) as service:
            first = await router.accept()
            await heard(first)
            await say(first, type="required-service", payload=EXPLOSION | {"revision": 9})
            await say(first, type="from-the-future", payload={"revision": 7})
            await following(service)
            await service.require("carchase-service")
            await heard(first)
            first.transport.abort()
            second = await router.accept()
            definition = await heard(second)
            self.assertEqual((definition["since"], definition["anew"]), (9, ["carchase-service"]))
            await say(second, type="required-service-lost", payload={"name": "carchase-service", "revision": 8})
            await following(service)
            second.transport.abort()
            third = await router.accept()
            requires = ["explosion-service", "carchase-service"]
            self.assertEqual(await heard(third), DEFINITION | {"requires": requires, "since": 9})
            # Of another table.
            await say(third, type="required-service-lost", payload={"name": "carchase-service", "revision": 0})
            await following(service)
            third.transport.abort()
            self.assertEqual((await heard(await router.accept()))["since"], 0)

    async def test_registers_again_when_nobody_meant_it_to_go(self):
        async with running() as router, Service(router.url, backoff=quick(), **DEFINITION) as service:
            connection = await router.accept()
            await heard(connection)
            gone = {"code": "deregistered", "reason": "it went"}
            for _ in range(3):
                await say(connection, type="error", payload=gone)
                self.assertEqual(await following(service), Refused("deregistered", "it went"))
                self.assertEqual(await heard(connection), DEFINITION)
            # What was meant stays so: the next that is heard is what this test makes it say.
            for cause in ("removed", "replaced"):
                await say(connection, type="error", payload=gone | {"cause": cause})
                self.assertEqual(await following(service), Refused("deregistered", "it went", cause))
            await asyncio.sleep(0.06)
            await service.define(weight=2)
            self.assertEqual(await heard(connection), DEFINITION | {"weight": 2})
            drained = asyncio.create_task(service.drain())
            self.assertEqual(await heard(connection), {"type": "drain"})
            await say(connection, type="error", payload=gone)
            self.assertEqual(await heard(connection), {"type": "drain"}, "one that leaves does not come back")
            await say(connection, type="error", payload={"code": "undefined", "reason": "there is no server"})
            await asyncio.wait_for(drained, 10)

    async def test_goes_to_the_next_router(self):
        async with running() as gone:
            pass
        async with running() as there:
            async with Service([gone.url, there.url], backoff=quick(), **DEFINITION):
                self.assertEqual(await heard(await there.accept()), DEFINITION)

    async def test_drains_over_a_lost_connection_too(self):
        async with running() as router, Service(router.url, backoff=quick(), **DEFINITION) as service:
            first = await router.accept()
            await heard(first)
            drained = asyncio.create_task(service.drain())
            self.assertEqual(await heard(first), {"type": "drain"})
            first.transport.abort()
            second = await router.accept()
            await heard(second)
            self.assertEqual(await heard(second), {"type": "drain"})
            await say(second, type="drained")
            await asyncio.wait_for(drained, 10)

    async def test_is_drained_where_nothing_is_registered(self):
        async with running() as router, Service(router.url, **DEFINITION) as service:
            connection = await router.accept()
            await heard(connection)
            drained = asyncio.create_task(service.drain())
            await heard(connection)
            await say(connection, type="error", payload={"code": "undefined", "reason": "there is no server"})
            await asyncio.wait_for(drained, 10)

    async def test_the_iteration_ends_with_the_service(self):
        async with running() as router:
            async with Service(router.url, **DEFINITION) as service:
                await heard(await router.accept())
            self.assertEqual([event async for event in service], [])


class BackoffTest(unittest.TestCase):
    def test_waits_longer_each_time_at_random(self):
        backoff = Backoff(first=0.1, longest=1.0, uniform=lambda: 0.5)
        waits = [backoff.next() for _ in range(6)]
        for found, expected in zip(waits, [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]):
            self.assertAlmostEqual(found, expected)
        backoff.reset()
        self.assertAlmostEqual(backoff.next(), 0.05)


if __name__ == "__main__":
    unittest.main()
