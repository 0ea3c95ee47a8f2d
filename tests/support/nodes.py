"""What the tests of a whole node share: a client of its HTTP side, consumers, a node inside the test's own process."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio

from pynsqd.daemon import Listeners, running
from pynsqd.options import Options
from pynsqd.runtime.kinds import LogLevel
from pynsqd.storage.checkpoint import Checkpoint
from tests.httpapi.running import Logs
from tests.support.daemons import host_port
from tests.support.wire import RESPONSE, Address, Frame, HttpAnswer, Message, WireClient, http

DEADLINE_S = 30.0
OK = Frame(RESPONSE, b"OK")
_HEARTBEAT = Frame(RESPONSE, b"_heartbeat_")


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str = "", deadline_s: float = DEADLINE_S
) -> Any:
    """Wait until ``condition()``, which may be a coroutine function, is true; return what it gave."""
    last: Any = None
    try:
        with anyio.fail_after(deadline_s):
            while True:
                last = condition()
                if isinstance(last, Awaitable):
                    last = await last
                if last:
                    return last
                await anyio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"did not come true: {what or condition}, {last!r}") from None


class Api:
    """The HTTP side of a node."""

    def __init__(self, address: Address) -> None:
        self.address = address

    async def post(self, target: str, body: bytes = b"") -> HttpAnswer:
        """Send a POST."""
        return await http(self.address, f"POST {target}", body, headers={"Content-Length": str(len(body))})

    async def do(self, *targets: str) -> None:
        """Send POSTs that have to work."""
        for target in targets:
            answer = await self.post(target)
            assert answer.status == 200, (target, answer)

    async def ping(self) -> tuple[int, bytes]:
        """Return status and body of /ping."""
        answer = await http(self.address, "GET /ping")
        return answer.status, answer.body

    async def stats(self, more: str = "") -> dict[str, Any]:
        """Return /stats."""
        answer = await http(self.address, f"GET /stats?format=json{more}")
        assert answer.status == 200, answer
        shown: dict[str, Any] = json.loads(answer.body)
        return shown

    async def topic(self, name: str = "t") -> dict[str, Any]:
        """Return the stats of one topic."""
        (shown,) = (await self.stats(f"&topic={name}"))["topics"]
        return dict(shown)

    async def channel(self, name: str = "c", topic: str = "t") -> dict[str, Any]:
        """Return the stats of one channel."""
        channels = (await self.topic(topic))["channels"]
        return dict(next(one for one in channels if one["channel_name"] == name))

    async def owes(self, name: str = "c", topic: str = "t") -> tuple[int, int, int]:
        """Return what waits in a channel, is in flight and is deferred."""
        shown = await self.channel(name, topic)
        return shown["depth"], shown["in_flight_count"], shown["deferred_count"]

    async def storage(self, topic: str = "t") -> dict[str, Any]:
        """Return what /stats shows of the files of a topic."""
        (shown,) = (await self.stats(f"&topic={topic}&include_storage=true"))["storage"]
        return dict(shown)


class V2(WireClient):
    """A V2 client that passes over heartbeats."""

    @classmethod
    async def consumer(cls, address: Address, rdy: int, topic: str = "t", channel: str = "c", **identify: Any) -> Self:
        """Subscribe; messages come."""
        client = await cls.open(address, deadline_s=DEADLINE_S)
        body = json.dumps(identify).encode()
        await client.send(b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body)
        assert await client.frame() == OK
        await client.send(f"SUB {topic} {channel}\n".encode())
        assert await client.frame() == OK
        await client.send(b"RDY %d\n" % rdy)
        return client

    async def frame(self) -> Frame:
        """Read one frame that is no heartbeat."""
        while (frame := await super().frame()) == _HEARTBEAT:
            await self.send(b"NOP\n")
        return frame

    async def ask(self, data: bytes) -> Frame:
        """Send a command and return its answer."""
        await self.send(data)
        return await self.frame()

    async def messages(self, count: int) -> list[Message]:
        """Read that many messages."""
        return [await self.message() for _ in range(count)]

    async def finish(self, messages: list[Message]) -> None:
        """FIN them."""
        await self.send(b"".join(b"FIN %s\n" % message.id for message in messages))


def owed_in_checkpoint(folder: Path, topic: str = "t", channel: str = "c") -> int:
    """Return how many messages the newer checkpoint says the channel owes by name; -1 if it knows none."""
    checkpoint = Checkpoint(folder)
    try:
        state = (checkpoint.states or {}).get(topic, {"channels": {}})["channels"].get(channel)
        return -1 if state is None else sum(len(ids) // 16 for _, ids, _ in state["owed"])
    finally:
        checkpoint.close()


@dataclass
class Inside:
    """A node in the process of the test."""

    listeners: Listeners
    logs: Logs
    api: Api

    @property
    def tcp(self) -> tuple[str, int]:
        return host_port(self.listeners.tcp.address)

    @property
    def https(self) -> tuple[str, int]:
        assert self.listeners.https is not None
        return host_port(self.listeners.https.address)

    def logged(self, text: str) -> bool:
        """Tell whether some line has ``text``."""
        return any(text in str(line) for line in self.logs.lines)


@asynccontextmanager
async def inside(data_path: Path, **options: Any) -> AsyncIterator[Inside]:
    """Run a node here, where its files can be made to fail. Its end is that of a SIGTERM."""
    given = Options(
        **dict.fromkeys(("tcp_address", "http_address", "https_address"), "127.0.0.1:0")
        | {"id": 1, "data_path": str(data_path)}
        | options
    )
    logs = Logs(LogLevel.INFO)
    async with running(given, logs) as listeners:  # type: ignore[arg-type]
        assert listeners.http is not None
        yield Inside(listeners, logs, Api(host_port(listeners.http.address)))
