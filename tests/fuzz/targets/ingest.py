"""An HTTP client that sends anything to the node's HTTP port. The first byte says how the rest is cut into reads.

What the ingest does not answer by itself is handed to the general path, which only takes notes here.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from time import monotonic_ns, time_ns

from pynsqd.core.broker import Broker
from pynsqd.httpapi.ingest import TOO_MANY_CONNECTIONS, Ingest
from pynsqd.net.door import Door
from pynsqd.net.turn import Turn
from pynsqd.options import Options
from pynsqd.wire.encoder import split_frames
from tests.fuzz.dice import pieces
from tests.support.memory_logs import MemoryLogs
from tests.support.wire import sized

_OPTIONS = Options(id=1, max_msg_size=64, max_body_size=512)
_LOOP = asyncio.new_event_loop()
_DATE = re.compile(rb"\r\nDate: [^\r]+")
_ANSWER = re.compile(rb"HTTP/1\.[01] (200|400|413|503) [^\r]+\r\n(?:[^\r]+\r\n)*?Content-Length: (\d+)\r\n\r\n")
_HELD = 1 << 14  # bytes that may wait although no body has been announced


def seeds() -> Iterable[bytes]:
    """Return requests of each kind."""
    head = b"Host: n\r\nContent-Length: %d\r\n%s\r\n%s"
    requests = [
        b"POST /pub?topic=t HTTP/1.1\r\n" + head % (2, b"", b"hi"),
        b"POST /pub?topic=t&defer=10 HTTP/1.1\r\n" + head % (2, b"Connection: close\r\n", b"hi"),
        b"POST /mpub?topic=t HTTP/1.0\r\n" + head % (5, b"Connection: Keep-Alive\r\n", b"a\nb\n\n"),
        b"POST /mpub?topic=t&binary=true HTTP/1.1\r\n" + head % (13, b"", b"\0\0\0\2" + sized(b"a") + b"\0\0\0\0"),
        b"POST /pub?topic=%74%zz&x=;&topic=u HTTP/1.1\r\n" + head % (1, b"", b"x"),
        b"GET /ping HTTP/1.1\r\nHost: n\r\n\r\n",
        b"GET /stats?format=json HTTP/1.1\r\nHost: n\r\n\r\n",
        b"POST /pub?topic=t HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"POST /pub?topic=t HTTP/1.1\r\nHost: n\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        b"POST /pub?topic=t HTTP/1.1\r\n" + head % (99999, b"", b""),
        b"POST /pub?topic=t HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /pub?topic=t HTTP/1.1\nHost: n\nContent-Length: 1\n\nx",
        b"GET /ping HTTP/1.1\r\n" + b"X: " + b"y" * 3000 + b"\r\nHost: n\r\n\r\n",
    ]
    for size in (0, 1, 11):
        for one in requests:
            yield bytes([size]) + one
        yield bytes([size]) + requests[0] * 3 + requests[5] + requests[6] + requests[0]


def run(data: bytes) -> None:
    """Raise unless answers are well-formed, bytes are neither lost nor used twice, and the cut makes no difference."""
    if not data:
        return
    whole = _LOOP.run_until_complete(_serve([data[1:]]))
    reads = pieces(data[1:], data[0])
    if len(reads) > 1:
        assert _LOOP.run_until_complete(_serve(reads)) == whole, "it depends on how the bytes were cut"


class _Transport:
    """The other side of a connection, as asyncio shows it."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.written = b""
        self.closed = False

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _General(asyncio.Protocol):
    """The general path: notes what it is given."""

    def __init__(self) -> None:
        self.taken = b""
        self.connections: Sequence[object] = ()

    def __call__(self) -> asyncio.Protocol:
        return self

    def data_received(self, data: bytes) -> None:
        self.taken += data

    def close(self) -> None: ...


async def _serve(reads: list[bytes]) -> object:
    logs = MemoryLogs()
    turn = Turn(Broker(_OPTIONS, logs, monotonic_ns(), time_ns()), lambda _: None)
    ingest = Ingest(turn, _OPTIONS, Door("HTTP", 0, TOO_MANY_CONNECTIONS, lambda *_, **__: None))
    general = _General()
    ingest.serve_general(general)
    connection = ingest.connection()
    transport = _Transport(connection)
    connection.connection_made(transport)  # type: ignore[arg-type]
    for read in reads:
        if transport.closed:
            break
        transport.protocol.data_received(read)
        assert len(connection._pending) <= _HELD  # type: ignore[attr-defined]
    while turn._scheduled:
        await asyncio.sleep(0)
    if not transport.closed:
        transport.protocol.eof_received()
    while turn._scheduled:
        await asyncio.sleep(0)
    connection.connection_lost(None)
    ingest.close()
    turn.close()
    answers = _answers(transport.written)
    sent = b"".join(reads)
    assert sent.endswith(general.taken)
    assert len(answers) <= sent.count(b"HTTP/1."), "more answers than requests"
    assert not general.taken or len(general.taken) + 16 * len(answers) <= len(sent), "bytes are used twice"
    stored = {name: [frame[34:] for frame in kept] for name, kept in _frames(logs).items()}
    for kept in stored.values():
        assert all(0 < len(body) <= _OPTIONS.max_msg_size and body in sent for body in kept)
    assert not any(stored.values()) or any(status == 200 for status, _ in answers)
    return answers, general.taken, stored, transport.closed


def _frames(logs: MemoryLogs) -> dict[str, list[bytes]]:
    return {
        name: [frame for _, _, batch, _ in log.records for frame in split_frames(batch.frames)]
        for name, log in logs.logs.items()
    }


def _answers(written: bytes) -> list[tuple[int, bytes]]:
    """Cut what was written into answers: status, and the whole without its date."""
    answers = []
    while written:
        found = _ANSWER.match(written)
        assert found, written[:200]
        end = found.end() + int(found[2])
        assert end <= len(written), "cut short"
        answers.append((int(found[1]), _DATE.sub(b"", written[:end])))
        written = written[end:]
    return answers
