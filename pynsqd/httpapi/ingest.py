"""The node's HTTP port. POST /pub, POST /mpub and GET /ping are answered in place, the rest by the general path.

A client sends the same head again and again, so a head is parsed once, by httptools, and then known by its bytes:
what is left per request is a find, a dict lookup and two slices. Whatever is unusual (another path, a chunked body,
``Expect``, a body that is too big, a head that httptools refuses) is handed over with the bytes read so far to the
general path (``runtime.http``), which has its own /pub, /mpub and /ping with the very same answers.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol, cast

from pynsqd.core.group_commit import HeldReplies
from pynsqd.httpapi.heads import HEAD_END, STYLES, Head, encode_reply, read_head, style_of
from pynsqd.httpapi.publish import not_stored, ping, publish
from pynsqd.runtime.http import Reply, v1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynsqd.core.publisher import Failure
    from pynsqd.net.door import Door
    from pynsqd.net.turn import Turn
    from pynsqd.options import Options
    from pynsqd.runtime.api_keys import ApiKeys
    from pynsqd.wire.errors import StorageError

_MAX_HEAD: Final = 8192  # bytes; a longer head is the general path's to judge
_KNOWN_HEADS: Final = 2048  # kept at a time
_MAX_KNOWN_HEAD: Final = 1024  # bytes; longer ones are parsed each time, which bounds what is kept

_SWEEP_S: Final = 5
_HALF_SENT_S: Final = 60  # without a byte of a request that has begun, or without the client taking its answers
_IDLE_S: Final = 3630  # between requests; longer than the keep-alive of the usual proxies

# Answers that one client may pile up in a turn. It can be read from 32 times in one, 256 KiB each, and the answer to a
# /ping is five times as long as the request.
_MOST_REPLIES: Final = 1000

# What is said to a connection that is one too many.
TOO_MANY_CONNECTIONS: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nX-Nsq-Content-Type: nsq; version=1.0\r\n"
    b'Content-Length: 34\r\n\r\n{"message":"TOO_MANY_CONNECTIONS"}'
)


class GeneralPath(Protocol):
    """Who answers what the ingest does not."""

    @property
    def connections(self) -> Sequence[object]:
        """The connections that were taken over."""
        ...

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol that takes a connection over."""
        ...

    def close(self) -> None:
        """Close the connections that were taken over."""
        ...


class Ingest:
    """The HTTP side of a node: makes the protocol of each connection, and holds what they share.

    ``connection`` is the protocol factory of the listener. ``serve_general`` says who answers the rest; requests that
    come before (the general path's imports take a quarter of a second) wait for it. With ``refuse`` it answers all.
    """

    def __init__(
        self, turn: Turn, options: Options, door: Door, keys: ApiKeys | None = None, *, refuse: bool = False
    ) -> None:
        self.turn = turn
        self.topics = turn.broker.topics
        self.door = door
        self.options = options
        self._keys = keys
        self._refuse = refuse
        self.general: GeneralPath | None = None
        self.parked: list[IngestConnection] = []
        self.connections: set[IngestConnection] = set()
        self.shaking: set[asyncio.Transport] = set()  # those that do not speak TLS yet, see ``Secured``
        self.connection_count = 0  # all there have been
        self.heads: dict[bytes, Head] = {}
        if keys is not None:
            keys.on_reload = self.heads.clear  # a head is known because its key allowed it
        self.second = 0  # counts while there are connections
        self.date = ""
        self.ok: list[bytes] = []  # the answer to a publish in each style
        self._clock: asyncio.TimerHandle | None = None

    def connection(self) -> asyncio.Protocol:
        """Make the protocol of a new connection."""
        if self._clock is None:
            self._start_second()
        self.connection_count += 1
        return IngestConnection(self)

    @property
    def open_now(self) -> int:
        """How many connections there are, those that were handed over too, and those in a handshake."""
        here = len(self.connections) + len(self.shaking)
        return here + (len(self.general.connections) if self.general is not None else 0)

    def serve_general(self, general: GeneralPath) -> None:
        """Hand what is not answered in place to ``general``: from now on, and what has waited."""
        self.general = general
        parked, self.parked = self.parked, []
        for connection in parked:
            connection.hand_over()

    def close(self) -> None:
        """Close every connection; answers already written still leave."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        for connection in tuple(self.connections):
            connection.close()
        for transport in tuple(self.shaking):
            transport.abort()
        if self.general is not None:
            self.general.close()

    def learn(self, raw: bytes) -> Head | None:
        """Read a head and know it by its bytes from now on; None if the request is the general path's."""
        head = None if self._refuse else read_head(raw, self.options, self._keys)
        if head is not None and len(raw) <= _MAX_KNOWN_HEAD:
            if len(self.heads) >= _KNOWN_HEADS:
                self.heads.clear()
            self.heads[raw] = head
        return head

    def _start_second(self) -> None:
        self.second += 1
        self.date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        self.ok = [encode_reply(v1("OK"), style, self.date) for style in range(len(STYLES))]
        self._clock = asyncio.get_running_loop().call_later(1.0, self._end_second)

    def _end_second(self) -> None:
        self._clock = None
        if self.connections:
            self._start_second()
        if self.second % _SWEEP_S == 0:
            for connection in tuple(self.connections):
                connection.sweep(self.second)


class IngestConnection(asyncio.Protocol):
    """One HTTP connection until it is handed over. A Publisher, and Flushable by the turn."""

    __slots__ = (
        "_closing",
        "_eof",
        "_full",
        "_heard",
        "_held",
        "_ingest",
        "_pending",
        "_rest",
        "_stuck",
        "_transport",
        "_wanted",
        "replies",
    )

    _transport: asyncio.Transport

    def __init__(self, ingest: Ingest) -> None:
        self.replies: list[bytes] = []
        self._ingest = ingest
        self._heard = ingest.second
        self._held: HeldReplies | None = None  # while replies wait for an fsync
        self._pending = bytearray()  # the beginning of a request
        self._wanted = 0  # bytes that must be pending before it is worth looking again
        self._rest: bytes | None = None  # what the general path is to begin with
        self._closing = False  # after the next flush, or closed already
        self._eof = False
        self._full = False  # there are enough answers for this turn
        self._stuck = False  # the client does not take its answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to be swept, if there is room for one more."""
        self._transport = cast(asyncio.Transport, transport)
        door = self._ingest.door
        if door.limit and door.refuses(self._transport, self._ingest.open_now):
            return
        self._ingest.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was not finished."""
        self._closing = True
        self._rest = None
        self._ingest.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are complete; their answers leave at the end of the turn."""
        ingest = self._ingest
        self._heard = ingest.second
        if self._closing:
            return
        if self._rest is not None:
            self._rest += data
            self._transport.pause_reading()  # answers come first, and an fsync may take its time
            return
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted:
                return
            data = bytes(self._pending)
            self._pending.clear()
        elif self._take_lone_post(ingest, data):
            ingest.turn.touch(self)
            return
        self._take(ingest, data)
        if 0 < len(self.replies) < _MOST_REPLIES:
            ingest.turn.touch(self)
        else:
            self._proceed()

    def _take_lone_post(self, ingest: Ingest, data: bytes) -> bool:
        """Publish if ``data`` is one whole POST /pub with a known head, as most reads bring; tell whether it is.

        That saves 86 of a POST's 318 bytecodes.
        """
        raw, _, body = data.partition(HEAD_END)
        head = ingest.heads.get(raw)
        if head is None or len(body) != head.body_length:
            return False
        topic = ingest.topics.get(head.topic)
        if topic is None:
            return False
        self.replies.append(ingest.ok[head.style])
        topic.publishes.publish(body, self, "PUB")
        self._closing = head.close
        return True

    def _take(self, ingest: Ingest, data: bytes) -> None:
        heads = ingest.heads
        broker = ingest.turn.broker
        start, end = 0, len(data)
        while start < end:
            head_end = data.find(HEAD_END, start, start + _MAX_HEAD)
            if head_end < 0:
                self._await_head(data[start:])
                return
            raw = data[start:head_end]
            body_at = head_end + len(HEAD_END)
            head = heads.get(raw) or ingest.learn(raw)
            if head is None:
                self._rest = data[start:]
                return
            stop = body_at + head.body_length
            if stop > end:
                self._pending += data[start:]
                self._wanted = stop - start
                return
            target = head.target
            if target is None:
                reply: Reply | None = ping(broker)
            else:
                reply = publish(broker, target, data[body_at:stop], self, ingest.ok[head.style])
            if reply is not None:
                self.replies.append(encode_reply(reply, head.style, ingest.date))
            if head.close:
                self._closing = True
                return
            start = stop

    def _await_head(self, data: bytes) -> None:
        """Wait for the rest of a head, unless only the general path can tell: it is too long, or has bare newlines."""
        if len(data) >= _MAX_HEAD or b"\n\n" in data:
            self._rest = data
        else:
            self._pending += data
            self._wanted = 0

    def _proceed(self) -> None:
        """Let the turn send the replies; what comes after them has to wait for that."""
        replies = self.replies
        if replies or self._held is not None:
            self._ingest.turn.touch(self)
            if len(replies) >= _MOST_REPLIES:
                self._full = True
                self._transport.pause_reading()
        elif self._rest is not None:
            self.hand_over()

    def flush(self) -> None:
        """Write the replies of this turn (Flushable), as far as they wait for no fsync."""
        replies, self.replies = self.replies, []
        held = self._held
        if held is not None:
            held.queue(replies)
            replies = held.take_free()
        transport = self._transport
        if replies and not transport.is_closing():
            transport.write(b"".join(replies))
        if self._full:
            self._full = False
            if not self._stuck and self._rest is None:
                transport.resume_reading()
        if held is not None:
            if held:
                return
            self._held = None
        if self._rest is not None:
            self.hand_over()
        elif self._closing:
            transport.close()

    def publish_failed(self, reply: int, verb: str, error: StorageError) -> None:
        """Answer 503 in the place of an OK that did not come true (Publisher)."""
        self.replies[reply] = self._refusal(self.replies[reply], error)

    def _refusal(self, reply: bytes, error: StorageError) -> bytes:
        return encode_reply(not_stored(error), style_of(reply), self._ingest.date)

    def hold(self, first: int) -> None:
        """Keep the replies from number ``first`` on back beyond the turn (Publisher)."""
        if self._held is None:
            self._held = HeldReplies()
        self._held.hold(self.replies, first)
        self.replies = []

    def let_go(self, failures: Sequence[Failure]) -> None:
        """The fsync for the oldest hold has come; the replies that came true leave, the others as 503 (Publisher)."""
        assert self._held is not None  # noqa: S101 - it is let go as often as it was held
        first, replies = self._held.take_oldest()
        for reply, _, error in failures:
            replies[reply - first] = self._refusal(replies[reply - first], error)
        self._held.let_out(replies)
        self._ingest.turn.touch(self)

    def hand_over(self) -> None:
        """Let the general path take the connection, as if it had been its own from ``_rest`` on."""
        general, rest, transport = self._ingest.general, self._rest, self._transport
        if general is None:
            transport.pause_reading()
            self._ingest.parked.append(self)
            return
        if rest is None:  # the client left while it waited
            return
        self._ingest.connections.discard(self)
        protocol = general()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._stuck:
            protocol.pause_writing()
        if not self._eof:
            transport.resume_reading()
        protocol.data_received(rest)
        if self._eof and not protocol.eof_received():
            transport.close()

    def eof_received(self) -> bool:
        """Keep the connection for the answers that are owed: nsqd answers a client that has shut down its side."""
        self._eof = True
        if self._pending:  # what is said to half a request is the general path's to know
            self._rest = bytes(self._pending)
            self._proceed()
        elif self._rest is None:
            self._closing = True
        return bool(self.replies) or self._held is not None or self._rest is not None

    def pause_writing(self) -> None:
        """Read no more requests from a client that does not take its answers."""
        self._stuck = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        self._stuck = False
        self._heard = self._ingest.second
        if self._rest is None and not self._full:
            self._transport.resume_reading()

    def sweep(self, second: int) -> None:
        """Drop the connection if nothing has moved for too long."""
        begun = self._pending or self._stuck or self._closing or self._rest is not None
        if second - self._heard >= (_HALF_SENT_S if begun else _IDLE_S):
            self._transport.abort()

    def close(self) -> None:
        """Close the connection once what was written has left."""
        self._closing = True
        self._transport.close()
