"""A service that needs another one, in Python: it calls the explosion as soon as it knows where it is."""

import asyncio
import signal
import sys
from urllib.request import urlopen

from message_flow_client import Lost, Refused, Required, Service


def call(host: str, port: int) -> str:
    with urlopen(f"http://{host}:{port}/", timeout=10) as answer:
        return answer.read().decode().strip()


async def main() -> None:
    routers = sys.argv[1:] or ["ws://127.0.0.1:8081"]
    requires = ["explosion-service"]
    async with Service(routers, name="killer-robot", port=9878, requires=requires) as service:
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: asyncio.ensure_future(leave(service))
        )
        async for event in service:
            match event:
                case Required(name, host, port):
                    print(f"killer-robot: {name} says {await asyncio.to_thread(call, host, port)}", flush=True)
                case Lost(name):
                    print(f"killer-robot: {name} is gone", flush=True)
                case Refused(code, reason):
                    print(f"killer-robot: {code}: {reason}", file=sys.stderr, flush=True)


async def leave(service: Service) -> None:
    try:
        await asyncio.wait_for(service.drain(), 30)
        print("killer-robot: drained", flush=True)
    finally:
        await service.close()


asyncio.run(main())
