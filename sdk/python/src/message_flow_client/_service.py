"""The connection: one task that dials, follows and dials again."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from ._backoff import Backoff

log = logging.getLogger("message_flow_client")

_PATH = "/v1/connect"
#: Why a server is not registered any more, where that was meant: then it is not registered again by itself.
_MEANT = ("removed", "replaced")
#: A connection that lasted so long, or brought a message, was a good one; a registration that did, too. Seconds.
_GOOD_AFTER = 5.0
#: Events that wait to be read; a reader that is slower than this slows its own connection.
_WAITING = 1024


@dataclass(frozen=True)
class Required:
    """A required service is there: a server of it, or the load balancer before it."""

    name: str
    host: str
    port: int
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Lost:
    """The last server of a required service is gone."""

    name: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """The router did not accept something; the connection stays. With the code ``deregistered``, ``cause`` says why
    the server is not registered any more: ``removed`` by somebody, ``replaced`` by another connection. Without one
    nobody meant it, and it is registered again after a pause."""

    code: str
    reason: str
    cause: str = ""


Event = Required | Lost | Refused


class Service:
    """A service that announces itself and follows what it needs::

        async with Service("ws://127.0.0.1:8081", name="carchase-service", port=9877,
                           requires=["explosion-service"]) as service:
            async for event in service:
                match event:
                    case Required(name, host, port): ...
                    case Lost(name): ...

    Several routers may be given: when a connection is lost the next one is tried, after a pause that
    doubles up to ten seconds and is random. It is told which revision was seen last, so that nothing is
    missed and nothing told twice.
    """

    def __init__(
        self,
        routers: str | Sequence[str],
        *,
        token: str | None = None,
        since: int | str | None = None,
        backoff: Backoff | None = None,
        **definition: Any,
    ) -> None:
        names = [routers] if isinstance(routers, str) else list(routers)
        if not names:
            raise ValueError("name at least one router, such as ws://127.0.0.1:8081")
        self._routers = [_address(name) for name in names]
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._definition = definition
        self._backoff = backoff or Backoff()
        self._again = copy.copy(self._backoff)
        self._registered = 0.0
        self._registering: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(_WAITING)
        self._connection: ClientConnection | None = None
        self._draining = False
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: The highest revision that was seen.
        self.since = since
        #: The requirements of which something was told, so that ``since`` is about them.
        self._told = set() if since is None else set(self._requirements())

    async def __aenter__(self) -> Service:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event

    async def define(self, **changes: Any) -> None:
        """Changes the definition, at the router too; keys that are not named stay."""
        self._definition |= changes
        self._told &= set(self._requirements())
        await self._say(self._definition)

    async def require(self, *names: str) -> None:
        """Needs these services as well."""
        needed = list(self._definition.get("requires", []))
        await self.define(requires=needed + [name for name in names if name not in needed])

    async def release(self, *names: str) -> None:
        """Needs these services no longer."""
        needed = self._definition.get("requires", [])
        await self.define(requires=[name for name in needed if name not in names])

    async def drain(self) -> None:
        """Returns when no router sends anything here any more: then it is safe to exit."""
        if not self._draining:
            self._draining = True
            await self._say({"type": "drain"})
        await self._drained.wait()

    async def close(self) -> None:
        """Ends the connection for good, and the iteration over events."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(None)

    async def _run(self) -> None:
        turn = 0
        while True:
            router = self._routers[turn % len(self._routers)]
            turn += 1
            try:
                await self._follow(router)
            except (OSError, TimeoutError, InvalidHandshake, WebSocketException) as error:
                log.debug("%s: %s", router, error)
            delay = self._backoff.next()
            log.info("%s is not connected; again in %.1f s", router, delay)
            await asyncio.sleep(delay)

    async def _follow(self, router: str) -> None:
        """One connection, from its handshake to its end. The library pings and answers pings."""
        began = asyncio.get_running_loop().time()
        async with connect(router, additional_headers=self._headers, proxy=None) as connection:
            self._connection = connection
            try:
                await self._say(self._definition | self._resume())
                if self._draining:
                    await self._say({"type": "drain"})
                async for text in connection:
                    self._backoff.reset()
                    await self._hear(text)
            finally:
                self._connection = None
                if self._registering:
                    self._registering.cancel()
                    self._registering = None
                if asyncio.get_running_loop().time() - began > _GOOD_AFTER:
                    self._backoff.reset()

    async def _say(self, message: Mapping[str, Any]) -> None:
        """What cannot be said now is said after the next handshake, as part of the definition."""
        if self._connection:
            try:
                await self._connection.send(json.dumps(message))
            except WebSocketException as error:
                log.debug("not said: %s", error)

    async def _hear(self, text: str | bytes) -> None:
        message = _parsed(text)
        payload = message.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        event: Event | None = None
        match message.get("type"):
            case "required-service":
                event = Required(payload.get("name", ""), payload.get("host", ""), payload.get("port", 0), payload)
            case "required-service-lost":
                event = Lost(payload.get("name", ""), payload)
            # Nothing is registered, so nothing is sent here.
            case "error" if self._draining and payload.get("code") == "undefined":
                self._drained.set()
            case "error":
                event = Refused(
                    str(payload.get("code", "")), str(payload.get("reason", "")), str(payload.get("cause", ""))
                )
            case "drained":
                self._drained.set()
        if event:
            await self._events.put(event)
        if isinstance(event, Required | Lost):
            self._told.add(payload.get("requirement", event.name))
        if isinstance(event, Refused) and event.code == "deregistered":
            await self._deregistered(event.cause)
        revision = message.get("revision", payload.get("revision"))
        if revision is not None:
            self.since = _highest(self.since, revision)

    def _resume(self) -> dict[str, Any]:
        """What is known, for the first definition of a connection."""
        if self.since is None:
            return {}
        anew = [name for name in self._requirements() if name not in self._told]
        return {"since": self.since} | ({"anew": anew} if anew else {})

    def _requirements(self) -> list[str]:
        """What is needed, by the names by which it is told."""
        return [_requirement(need) for need in self._definition.get("requires", [])]

    async def _deregistered(self, cause: str) -> None:
        """The connection is open and its server is not registered: registers it again, unless somebody meant it."""
        if self._draining:
            # Nothing is registered any more, which the router says if it is asked.
            await self._say({"type": "drain"})
        elif cause not in _MEANT and not self._registering:
            if asyncio.get_running_loop().time() - self._registered > _GOOD_AFTER:
                self._again.reset()
            self._registering = asyncio.create_task(self._register(self._again.next()))

    async def _register(self, delay: float) -> None:
        await asyncio.sleep(delay)
        self._registering = None
        self._registered = asyncio.get_running_loop().time()
        await self._say(self._definition)


def _address(text: str) -> str:
    """``http://HOST:PORT`` and ``ws://HOST:PORT`` are a router; a path of one's own is kept."""
    parts = urlsplit(text)
    if not parts.hostname:
        raise ValueError(f"{text!r} is not a router: write ws://HOST:PORT")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.path not in ("", "/") else _PATH
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def _requirement(need: Any) -> str:
    if isinstance(need, str):
        return need
    name, version = str(need["name"]), need.get("version")
    return name if version is None else f"{name.split('@')[0]}@{version}"


def _highest(known: int | str | None, came: int | str) -> int | str:
    """0 says that what was seen before is of another table."""
    if not isinstance(known, int) or not isinstance(came, int) or came == 0:
        return came
    return max(known, came)


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
