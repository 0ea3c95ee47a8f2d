"""Fifty connections that speak valid and broken protocol at random, while two clients work that must not notice.

``python -m tests.fuzz.crowd --rounds 20000 --seed 7`` is the long form.
"""

import argparse
import asyncio
import json
import random
import socket
import struct
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio

from tests.fuzz.well_behaved import clients, descriptors, pair, rss_bytes
from tests.support.daemons import Daemon
from tests.support.nodes import eventually
from tests.support.wire import command, mpub, sized

CROWD: Final = 50
FLAGS: Final = ("--max-msg-size=4096", "--max-body-size=16384", "--msg-timeout=2s", "--mem-queue-size=50")
_MAX_FRAME: Final = 1 << 16
_GROWTH: Final = 200 << 20  # bytes of memory that such a crowd may cost
_FILES: Final = 64  # segments that stay open
_PAUSE_S: Final = 0.002  # between two things that one of them does, so that fifty leave the test some time
_HTTP_SHARE: Final = 10  # one of so many connections speaks HTTP

_OPEN_ENDED: Final = (
    b"PUB h1\n\x00\x00\x0f\xffhalf a body",
    b"MPUB h1\n\x00\x00\x01\x00\x00\x00\x00\x05\x00\x00\x00\x02ab",
    b"IDENTIFY\n\x00\x00",
    b"FIN 01234567",
    b"SUB h1",
)
_BROKEN: Final = (
    b"PUB h1\n\xff\xff\xff\xff",
    b"PUB h1\n\x7f\xff\xff\xff",
    b"MPUB h1\n\x00\x00\x00\x08\x7f\xff\xff\xff\x00\x00\x00\x01",
    b"MPUB h1\n\x00\x00\x00\x08\xff\xff\xff\xff\x00\x00\x00\x01",
    b"DPUB h1 -1\n" + sized(b"x"),
    b"DPUB h1 99999999999999999999\n" + sized(b"x"),
    b"RDY -1\n",
    b"RDY 99999999\n",
    b"SUB h1 *\n",
    b"SUB " + b"h" * 65 + b" c\n",
    b"IDENTIFY\n" + sized(b"[" * 9000),
    b"IDENTIFY\n" + sized(b'{"heartbeat_interval":1e99}'),
    b"AUTH\n" + sized(b"secret"),
    b"\r\n\r\n",
    b"x" * 20_000,
    b"GET / HTTP/1.1\r\n\r\n",
)
_HTTP: Final = (
    b"POST /pub?topic=h2 HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\nhi",
    b"POST /mpub?topic=h2 HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\n\r\na\nb\nc",
    b"POST /mpub?topic=h2&binary=true HTTP/1.1\r\nHost: n\r\nContent-Length: 8\r\n\r\n\xff\xff\xff\xff\0\0\0\1",
    b"POST /pub?topic=* HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\n\r\nx",
    b"POST /pub?topic=h2 HTTP/1.1\r\nHost: n\r\nContent-Length: 99999999999999999999\r\n\r\nx",
    b"POST /pub?topic=h2 HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\nx",
    b"POST /pub?topic=h2 HTTP/1.1\r\nHost: n\r\nContent-Length: 100\r\n\r\nhalf",
    b"POST /channel/empty?topic=h1&channel=c1 HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n",
    b"POST /channel/delete?topic=h1&channel=c2 HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n",
    b"POST /topic/delete?topic=h3 HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n",
    b"POST /topic/empty?topic=h2 HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n",
    b"POST /channel/pause?topic=h1&channel=c1 HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n",
    b"POST /channel/unpause?topic=h1&channel=c1 HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n",
    b"GET /stats?format=json&topic=h1 HTTP/1.1\r\nHost: n\r\n\r\n",
    b"PUT /config/log_level HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\n\r\nwrong",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    b"GET /ping HTTP/1.1\nHost: n\n\n",
)


class Stranger:
    """One of the crowd. It connects again whenever it was thrown out, or has had enough."""

    def __init__(self, node: Daemon, chance: random.Random) -> None:
        self._chance = chance
        self._ids: list[bytes] = []
        self._node = node
        self.frames = 0
        self.done = 0

    async def run(self) -> None:
        """Do harm until cancelled."""
        while True:
            http = self._chance.randrange(_HTTP_SHARE) == 0
            with suppress(ConnectionError):
                await self._visit(http)

    async def _visit(self, http: bool) -> None:
        reader, writer = await asyncio.open_connection(*(self._node.http if http else self._node.tcp))
        if self._chance.randrange(2):  # its end is a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        listening: asyncio.Task[None] | None = None
        try:
            if self._chance.randrange(8):  # else it never reads
                listening = asyncio.create_task(self._skip(reader) if http else self._listen(reader))
            if not http:
                writer.write(self._chance.choice([b"  V2"] * 9 + [b"  V1", b" ", b"GET "]))
            for _ in range(self._chance.randrange(1, 40)):
                if writer.is_closing():
                    break
                await self._speak(writer, self._chance.choice(_HTTP) if http else self._command())
        finally:
            writer.transport.abort()
            if listening is not None:
                listening.cancel()
                await asyncio.wait([listening])
                self._judge(listening)

    @staticmethod
    def _judge(listening: asyncio.Task[None]) -> None:
        """Raise what was wrong with what the node said; an end of the connection is not."""
        error = None if listening.cancelled() else listening.exception()
        if error is not None and not isinstance(error, (ConnectionError, asyncio.IncompleteReadError)):
            raise error

    async def _speak(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        cut = self._chance.randrange(len(data)) if self._chance.randrange(4) == 0 else 0
        for part in (data[:cut], data[cut:]):
            if part:
                writer.write(part)
                await asyncio.sleep(_PAUSE_S)
        self.done += 1

    def _command(self) -> bytes:
        chance = self._chance
        topic = b"h%d" % chance.randrange(1, 4) + (b"#ephemeral" if chance.randrange(6) == 0 else b"")
        body = chance.randbytes(chance.choice([1, 10, 300, 4000]))
        one = self._ids.pop(chance.randrange(len(self._ids))) if self._ids else b"0123456789abcdef"
        kind = chance.randrange(14)
        if kind == 0:
            asked = {
                "heartbeat_interval": chance.choice([-1, 1000, 5, 60000]),
                "msg_timeout": chance.choice([0, 1000, 1]),
                "sample_rate": chance.choice([0, 0, 50, 100]),
                "output_buffer_size": chance.choice([0, -1, 64, 1]),
                "feature_negotiation": True,
                "snappy": chance.randrange(5) == 0,
                "deflate": chance.randrange(5) == 0,
            }
            return command(b"IDENTIFY", json.dumps(asked).encode())
        if kind in (1, 2):
            return command(b"PUB " + topic, body)
        if kind == 3:
            return mpub(topic, [body[:9]] * chance.randrange(1, 20))
        if kind == 4:
            return command(b"DPUB %s %d" % (topic, chance.randrange(3000)), body)
        if kind in (5, 6):
            return b"SUB %s c%d\nRDY %d\n" % (topic, chance.randrange(1, 3), chance.choice([0, 1, 100, 2500]))
        if kind in (7, 8):
            return b"FIN " + one + b"\n"
        if kind == 9:
            return b"REQ %s %d\n" % (one, chance.choice([0, 0, 50, 5000, 99999999]))
        if kind == 10:
            return b"TOUCH " + one + b"\n"
        if kind == 11:
            return chance.choice([b"NOP\n", b"CLS\n", b"RDY 7\n"])
        if kind == 12:
            return chance.choice(_OPEN_ENDED)
        return chance.choice(_BROKEN) if chance.randrange(3) else chance.randbytes(chance.randrange(1, 60))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Read frames to the end, and remember the ids of messages."""
        while True:
            size = int.from_bytes(await reader.readexactly(4), "big")
            assert 4 <= size <= _MAX_FRAME, f"a frame of {size} bytes"
            frame = await reader.readexactly(size)
            kind = int.from_bytes(frame[:4], "big")
            assert kind in (0, 1, 2), frame[:80]
            if kind == 2:
                self._ids = [*self._ids[-50:], frame[14:30]]
            elif kind == 1:
                assert frame.startswith(b"E_", 4), frame[:80]
            elif b'"snappy":true' in frame or b'"deflate":true' in frame:
                await self._skip(reader)  # it is compressed from here on, and what it sends is not
                return
            self.frames += 1

    async def _skip(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(1 << 16):
            pass


async def run(node: Daemon, rounds: int, seed: str) -> list[Stranger]:
    """Let the crowd loose on a node until the well-behaved pair has had ``rounds``; fail if that was disturbed."""
    strangers = [Stranger(node, random.Random(f"{seed} {number}")) for number in range(CROWD)]
    async with pair(node) as good:
        await good.exchange(1)
        before, memory = descriptors(node), rss_bytes(node)
        async with asyncio.TaskGroup() as tasks:
            crowd = [tasks.create_task(stranger.run()) for stranger in strangers]
            await good.exchange(rounds)
            for task in crowd:
                task.cancel()
        await good.settle()
        await eventually(lambda: _only(node, 2), "only the two are left")
        await eventually(
            lambda: descriptors(node) <= before + 80, "the sockets are closed"
        )  # files of topics stay open
        assert rss_bytes(node) < memory + _GROWTH
        await good.settle()
    at = node.stderr.find("Traceback")
    assert at < 0, node.stderr[max(0, at - 500) : at + 5000]
    return strangers


async def _only(node: Daemon, count: int) -> bool:
    return await clients(node) == count


def main() -> None:
    """Run the long form; exits with 1 and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20_000, help="of the well-behaved pair")
    parser.add_argument("--seed", default="1")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Daemon("nsqd", *FLAGS, data_path=Path(folder)) as node:
        strangers = anyio.run(run, node, arguments.rounds, arguments.seed)
        done = sum(stranger.done for stranger in strangers)
        sys.stdout.write(f"crowd: {done} commands, {sum(one.frames for one in strangers)} frames, nobody disturbed\n")


if __name__ == "__main__":
    main()
