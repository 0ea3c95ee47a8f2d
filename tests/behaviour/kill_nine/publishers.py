"""Clients that publish until the node dies: over TCP several commands at a time, over HTTP one."""

import asyncio
import struct
from collections import deque
from contextlib import suppress
from random import Random
from time import monotonic_ns
from typing import Final

from tests.behaviour.kill_nine.bodies import make
from tests.behaviour.kill_nine.ledger import Ledger
from tests.behaviour.kill_nine.records import Publish
from tests.support.wire import RESPONSE, command, mpub, sized

_OK: Final = b"\0\0\0\6\0\0\0\0OK"
_HEARTBEAT: Final = b"_heartbeat_"
_STOPPING: Final = b"failed exiting"  # the cause in the error of a publish that comes while the node stops
_FAR: Final = 0.01
_LONG: Final = 0.02
_LONG_BATCH: Final = 800


class Delays:
    """How long messages are deferred for, in ms: mostly less than a few lives; rarely up to ``far_ms``."""

    def __init__(self, far_ms: int) -> None:
        self._far_ms = far_ms

    def draw(self, random: Random) -> int:
        """Return a delay."""
        return random.randint(1, self._far_ms) if random.random() < _FAR else random.randint(1, 1500)


class Publisher:
    """What publishers share: what they publish, and the pauses between."""

    def __init__(self, name: str, random: Random, ledger: Ledger, topics: list[str], delays: Delays) -> None:
        self.name = name
        self._random = random
        self._ledger = ledger
        self._topics = topics
        self._delays = delays

    def _most(self) -> int:
        """Return the most messages of the next batch: mostly few, now and then as many as come in several reads."""
        return _LONG_BATCH if self._random.random() < _LONG else 12

    def _new(self, verb: str, *, most: int = 1, delay_ms: int = 0) -> tuple[Publish, list[bytes]]:
        count = self._random.randint(1, most)
        topic = self._random.choice(self._topics)
        publish = self._ledger.publish(
            topic, count, verb, publisher=self.name, now_ns=monotonic_ns(), delay_ms=delay_ms
        )
        return publish, [make(number, self._random) for number in publish.numbers]


class TcpPublisher(Publisher):
    """PUB, MPUB and DPUB, up to six behind one another."""

    async def live(self, address: tuple[str, int]) -> None:
        """Publish until the connection ends."""
        connection = _Replies(self._ledger)
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: connection, *address)
        except OSError:
            return
        transport.write(b"  V2")
        while not transport.is_closing():
            transport.write(b"".join(self._command(connection.pending) for _ in range(self._random.randint(1, 6))))
            await connection.answered()
            with suppress(TimeoutError):
                await asyncio.wait_for(connection.ended.wait(), self._random.uniform(0.002, 0.03))
        transport.abort()

    def _command(self, pending: deque[Publish]) -> bytes:
        kind = self._random.random()
        if kind < 0.5:
            publish, (body,) = self._new("PUB")
            words = command(f"PUB {publish.topic}".encode(), body)
        elif kind < 0.75:
            publish, bodies = self._new("MPUB", most=self._most())
            words = mpub(publish.topic.encode(), bodies)
        else:
            delay_ms = self._delays.draw(self._random)
            publish, (body,) = self._new(f"DPUB {delay_ms}", delay_ms=delay_ms)
            words = command(f"DPUB {publish.topic} {delay_ms}".encode(), body)
        pending.append(publish)
        return words


class _Replies(asyncio.Protocol):
    """The answers to what one connection published, in order."""

    def __init__(self, ledger: Ledger) -> None:
        self.pending: deque[Publish] = deque()
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._ledger = ledger
        self._buffer = b""

    async def answered(self) -> None:
        """Wait until nothing is pending or the connection has ended."""
        while self.pending and not self.ended.is_set():
            self._changed.clear()
            await self._changed.wait()

    def data_received(self, data: bytes) -> None:
        now_ns = monotonic_ns()
        buffer = self._buffer + data
        while len(buffer) >= 4 and len(buffer) >= (end := 4 + struct.unpack_from(">i", buffer)[0]):
            self._answer(buffer[:end], now_ns)
            buffer = buffer[end:]
        self._buffer = buffer
        self._changed.set()

    def _answer(self, frame: bytes, now_ns: int) -> None:
        if frame == _OK and self.pending:
            self._ledger.acknowledge(self.pending.popleft(), now_ns)
        elif frame[7] == RESPONSE and frame[8:] == _HEARTBEAT:
            return
        elif frame.endswith(_STOPPING):
            self.pending.popleft()
        else:
            self._ledger.violate("answer", f"a publisher was answered {frame!r}")

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()
        self._changed.set()


class HttpPublisher(Publisher):
    """/pub, /pub?defer= and both forms of /mpub on a connection that is kept."""

    async def live(self, address: tuple[str, int]) -> None:
        """Publish until the connection ends."""
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(*address)
            try:
                while True:
                    await self._post(reader, writer)
                    await asyncio.sleep(self._random.uniform(0.002, 0.03))
            finally:
                writer.transport.abort()

    async def _post(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        publish, target, body = self._request()
        head = f"POST {target} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, length = answer.partition(b"content-length: ")
        text = await reader.readexactly(int(length.partition(b"\r\n")[0]))
        if answer.startswith(b"http/1.1 200 ") and text == b"OK":
            self._ledger.acknowledge(publish, monotonic_ns())
        elif b"EXITING" not in text:
            self._ledger.violate("answer", f"{publish.verb} was answered {answer!r} {text!r}")

    def _request(self) -> tuple[Publish, str, bytes]:
        kind = self._random.random()
        if kind < 0.4:
            publish, (body,) = self._new("/pub")
            return publish, f"/pub?topic={publish.topic}", body
        if kind < 0.6:
            delay_ms = self._delays.draw(self._random)
            publish, (body,) = self._new(f"/pub?defer={delay_ms}", delay_ms=delay_ms)
            return publish, f"/pub?topic={publish.topic}&defer={delay_ms}", body
        if kind < 0.8:
            publish, bodies = self._new("/mpub", most=self._most())
            return publish, f"/mpub?topic={publish.topic}", b"\n".join(bodies)
        publish, bodies = self._new("/mpub?binary=true", most=self._most())
        batch = struct.pack(">i", len(bodies)) + b"".join(map(sized, bodies))
        return publish, f"/mpub?topic={publish.topic}&binary=true", batch
