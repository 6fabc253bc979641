"""A service that needs another one, in Python: it calls the explosion as soon as it knows where it is.
It answers every request as well; at /slow, after two seconds."""

import asyncio
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.request import urlopen

from message_flow_client import Lost, Refused, Required, Service


class Robot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(2)
        answer = b"exterminate\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def call(host: str, port: int) -> str:
    with urlopen(f"http://{host}:{port}/", timeout=10) as answer:
        return answer.read().decode().strip()


async def main(port: int) -> None:
    routers = sys.argv[1:] or ["ws://127.0.0.1:8081"]
    requires = ["explosion-service"]
    async with Service(routers, name="killer-robot", port=port, requires=requires) as service:
        leaving: list[asyncio.Task[None]] = []
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: leaving.append(asyncio.create_task(leave(service)))
        )
        async for event in service:
            match event:
                case Required(name, host, port):
                    print(f"killer-robot: {name} says {await asyncio.to_thread(call, host, port)}", flush=True)
                case Lost(name):
                    print(f"killer-robot: {name} is gone", flush=True)
                case Refused(code, reason):
                    print(f"killer-robot: {code}: {reason}", file=sys.stderr, flush=True)
        # A drain that took too long raises here.
        await asyncio.gather(*leaving)


async def leave(service: Service) -> None:
    try:
        await asyncio.wait_for(service.drain(), 30)
        print("killer-robot: drained", flush=True)
    finally:
        await service.close()


server = ThreadingHTTPServer(("127.0.0.1", 0), Robot)
Thread(target=server.serve_forever, daemon=True).start()
asyncio.run(main(server.server_port))
