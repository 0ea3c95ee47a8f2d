"""A lookupd in this process, on real sockets, and what a test wants to ask it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from lookupd.daemon import Listeners, running
from lookupd.options import Options
from tests.support.wire import WireClient, command

HOST = "127.0.0.1"


def capture_log() -> tuple[FilteringBoundLogger, LogCapture]:
    """Return a logger and what it has been given."""
    log = LogCapture()
    logger = structlog.wrap_logger(None, processors=[log], wrapper_class=structlog.make_filtering_bound_logger(0))
    return logger, log


@dataclass
class Response:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


@dataclass
class Lookupd:
    """Clients of a running lookupd, and its log."""

    listeners: Listeners
    log: LogCapture
    clients: list[WireClient] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where nodes connect."""
        return self.listeners.tcp.address

    async def connect(self, magic: bytes = b"  V1") -> WireClient:
        """Connect as a node does; closed with the lookupd."""
        client = await WireClient.open((HOST, self.listeners.tcp.port), magic)
        self.clients.append(client)
        return client

    async def node(self, name: str = "ba", **values: object) -> WireClient:
        """Connect and identify."""
        info = {"version": "1.3.0", "tcp_port": 4150, "http_port": 4151, "hostname": "h", "broadcast_address": name}
        client = await self.connect()
        await client.send(command(b"IDENTIFY", json.dumps(info | values).encode()))
        assert (await client.response()).startswith(b"{")
        return client

    async def say(self, client: WireClient, *lines: bytes) -> None:
        """Send commands that are answered OK."""
        await client.send(b"".join(command(line) for line in lines))
        for _ in lines:
            assert await client.response() == b"OK"

    async def request(self, target: str, method: str = "GET") -> Response:
        """Send an HTTP request on a connection of its own."""
        async with await WireClient.open((HOST, self.listeners.http.port), b"") as client:
            await client.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await client.drain()).partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Response(int(line.split()[1]), headers, body)

    async def get(self, target: str) -> Any:
        """Return the JSON of a GET that succeeds."""
        response = await self.request(target)
        assert response.status == 200, response
        return response.json

    async def post(self, target: str) -> None:
        """POST what succeeds without a result."""
        response = await self.request(target, "POST")
        assert (response.status, response.body) == (200, b""), response


@asynccontextmanager
async def running_lookupd(**options: Any) -> AsyncIterator[Lookupd]:
    """Have a lookupd on free ports, or on the addresses given, with further options as given."""
    logger, log = capture_log()
    addresses = {"tcp_address": f"{HOST}:0", "http_address": f"{HOST}:0", "broadcast_address": HOST}
    async with running(Options(**addresses | options), logger) as listeners:
        lookupd = Lookupd(listeners, log)
        yield lookupd
        for client in lookupd.clients:
            await client.close()
