"""A node's HTTP side on a real socket, with the real core behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic_ns, time_ns
from typing import Any

import anyio.lowlevel
import structlog

from pynsqd.core.broker import Broker
from pynsqd.core.changes import Change
from pynsqd.httpapi.app import general_path
from pynsqd.httpapi.ingest import TOO_MANY_CONNECTIONS, Ingest
from pynsqd.httpapi.node import Node
from pynsqd.net.door import Door
from pynsqd.net.drain import Drain
from pynsqd.net.turn import Turn
from pynsqd.options import Options
from pynsqd.runtime.kinds import LogLevel
from pynsqd.runtime.metrics import Histogram
from pynsqd.storage.timings import Timings
from tests.httpapi.client import Answer, HttpClient
from tests.support.session_wire import FailingLogs


@dataclass
class Logs:
    """A log that a test can read."""

    level: LogLevel = LogLevel.INFO
    lines: list[Any] = field(default_factory=list)

    @property
    def logger(self) -> Any:
        return structlog.wrap_logger(None, processors=[self._keep])

    def _keep(self, _: object, method: str, event: dict[str, Any]) -> None:
        self.lines.append((method, event))
        raise structlog.DropEvent


@dataclass
class Peers:
    """What the lookup peers were told."""

    addresses: list[str] = field(default_factory=list)

    def set_addresses(self, addresses: Any) -> None:
        self.addresses = list(addresses)

    def connected(self) -> dict[str, bool]:
        return dict.fromkeys(self.addresses, True)

    async def leave(self) -> None:
        self.addresses = []


@dataclass
class RunningNode:
    """What a test needs of a node; ``port`` is the ingest's."""

    port: int
    node: Node
    ingest: Ingest
    broker: Broker
    storage: FailingLogs
    logs: Logs
    peers: Peers
    changes: list[Change]

    def stored(self, topic: str = "t") -> list[bytes]:
        """Return the bodies in the log of ``topic``."""
        bodies = []
        for _, _, batch, _ in self.storage.open(topic).records:
            frames = batch.frames
            while frames:
                size = int.from_bytes(frames[:4], "big") + 4
                bodies.append(frames[34:size])
                frames = frames[size:]
        return bodies

    async def ask(self, line: str, body: bytes | None = None) -> Answer:
        """Send one request on a connection of its own."""
        async with await HttpClient.open(self.port) as client:
            return await client.ask(line, body)

    async def serve_general(self) -> None:
        """Begin to answer what the ingest does not."""
        self.ingest.serve_general(await general_path(self.node))


@asynccontextmanager
async def running_node(options: Options | None = None, *, general: bool = True) -> AsyncIterator[RunningNode]:
    """Have a node's HTTP side; without ``general`` only what the ingest answers by itself."""
    options = options or Options()
    storage, logs, peers, changes = FailingLogs(), Logs(), Peers(), list[Change]()
    broker = Broker(options, storage, monotonic_ns(), time_ns())
    turn = Turn(broker, changes.extend)
    ingest = Ingest(turn, options, Door("HTTP", options.max_connections, TOO_MANY_CONNECTIONS, logs.logger.warning))
    server = await asyncio.get_running_loop().create_server(ingest.connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    drain = Drain(broker, peers.leave, logs.logger)
    node = Node(
        turn,
        options,
        logs,
        peers,
        ingest=ingest,
        tcp_door=ingest.door,
        drain=drain,
        timings=Timings(),
        loop_lag=Histogram(),
        tcp_port=4150,
        http_port=port,
    )
    running = RunningNode(port, node, ingest, broker, storage, logs, peers, changes)
    try:
        if general:
            await running.serve_general()
        yield running
    finally:
        server.close()
        ingest.close()
        turn.close()
        await until(lambda: not ingest.connections)
        await until(lambda: not getattr(ingest.general, "connections", ()))


async def until(condition: Any) -> None:
    """Wait until ``condition()`` holds."""
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.002)


async def let_read() -> None:
    """Let the server, on the same loop, read what was sent."""
    for _ in range(4):
        await anyio.lowlevel.checkpoint()
