"""A lookupd that answers a node with anything, over V1 and then over HTTP.

The first byte says how its V1 answers are cut into reads, 0 that each is one; what comes after an empty line is its
HTTP answer.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

import anyio

from pynsqd import lookup_peer
from pynsqd.lookup_peer import LookupPeers
from pynsqd.wire.lookup_v1 import sized
from pynsqd.wire.names import is_valid_name
from tests.fuzz.dice import pieces
from tests.support.lookupds import capture_log

_RUNNER = asyncio.Runner()
_TOPICS = [("t", "c"), ("u", "")]
_OK = sized(b"OK")


def seeds() -> Iterable[bytes]:
    """Return answers of each kind."""
    info = {"tcp_port": 1, "http_port": 2, "version": "1.3.0", "broadcast_address": "10.0.0.1", "hostname": "h"}
    channels = json.dumps({"channels": ["c", "d#ephemeral", "no name!", 3, "\ud800"]}).encode()
    good = sized(json.dumps(info).encode()) + _OK * len(_TOPICS)
    for size in (0, 1, 9):
        yield bytes([size]) + good + b"\n\n" + channels
        yield bytes([size]) + good + b"\n\n" + b"[" * 3000
    for host in ("", "a/b", "[", "::1%x", "\u2603", "x" * 300, "x" * 3000, "a\0b", "user@host", "a..b", "h:99999"):
        yield b"\0" + sized(json.dumps(info | {"broadcast_address": host}).encode()) + _OK * 2 + b"\n\n" + channels
    for answer in (b"", b"null", b"[]", b"E_INVALID no", b"OK", b'{"tcp_port":"1"}', b'{"http_port":1e999}'):
        yield b"\0" + sized(answer)
    yield b"\0\xff\xff\xff\xff"
    yield b"\0\x7f\xff\xff\xff"
    yield b"\0" + good + sized(b"too much")


def run(data: bytes) -> None:
    """Raise unless the node only closes the connection, and takes nothing but valid names from it."""
    if not data:
        return
    spoken, _, told = data[1:].partition(b"\n\n")
    _RUNNER.run(_meet(pieces(spoken, data[0]) if data[0] else _one_by_one(spoken), told))


def _one_by_one(spoken: bytes) -> list[bytes]:
    """Cut where an answer ends, as far as there are any."""
    reads = []
    while spoken:
        end = 4 + int.from_bytes(spoken[:4], "big")
        reads.append(spoken[:end])
        spoken = spoken[end:]
    return reads


class _Stream:
    """The connection to that lookupd: it says what it has to say, and closes."""

    def __init__(self, reads: list[bytes]) -> None:
        self._reads = [read for read in reads if read]
        self._reads.reverse()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        if not self._reads:
            raise anyio.EndOfStream
        return self._reads.pop()


class _Http:
    """A client of its HTTP side, and its one answer."""

    status = 200

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.content = self

    def get(self, url: Any, **_: object) -> Self:
        assert url.path == "/channels", url
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body


async def _meet(reads: list[bytes], told: bytes) -> None:
    async def connect(host: str, port: int) -> _Stream:
        return _Stream(reads)

    lookup_peer.anyio.connect_tcp = connect  # type: ignore[assignment]
    logger, log = capture_log()
    peers = LookupPeers(lambda: _TOPICS, {"version": "1.3.0"}, logger, connect_timeout_ns=1, request_timeout_ns=1)
    peer = lookup_peer._Peer("10.0.0.1:4160", lambda: _TOPICS, b"IDENTIFY\n", logger, 15.0)
    await peer._connect()
    peers._peers["10.0.0.1:4160"] = peer
    peers._http = _Http(told)  # type: ignore[assignment]
    peers._http_ready.set()
    names = await peers.channels("t")
    assert all(is_valid_name(name) and not name.endswith("#ephemeral") for name in names)
    assert all(len(str(entry)) < 1000 for entry in log.entries), "it fills the log"
