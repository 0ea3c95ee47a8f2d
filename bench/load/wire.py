"""Raw NSQ for load: commands encoded once, answers compared whole, messages finished a bufferful at a time."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

from load.broker import Address
from load.failed import Failed

T = TypeVar("T")

BODY: Final = b"x" * 200
BATCH: Final = 200
RDY: Final = 2500

OK: Final = b"\0\0\0\6\0\0\0\0OK"
HEAD_SIZE: Final = 34  # of a message frame with its four bytes of size: then type, timestamp, attempts, id
ID_SIZE: Final = 16
RECEIVE_SIZE: Final = 1 << 18
# The longest heartbeat nsqd allows, so that none falls into a run.
IDENTIFY: Final = b'{"client_id":"bench","hostname":"bench","user_agent":"bench/1","heartbeat_interval":60000}'


def sized(body: bytes) -> bytes:
    """The body behind its four bytes of size."""
    return struct.pack(">i", len(body)) + body


def pub(topic: str, body: bytes) -> bytes:
    """One PUB."""
    return f"PUB {topic}\n".encode() + sized(body)


def dpub(topic: str, delay_ms: int, body: bytes) -> bytes:
    """One DPUB."""
    return f"DPUB {topic} {delay_ms}\n".encode() + sized(body)


def mpub(topic: str, bodies: Sequence[bytes]) -> bytes:
    """One MPUB."""
    batch = struct.pack(">i", len(bodies)) + b"".join(map(sized, bodies))
    return f"MPUB {topic}\n".encode() + sized(batch)


def connect(address: Address) -> socket.socket:
    """A connection that has said which protocol it speaks."""
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"  V2")
    return connection


def expect_ok(connection: socket.socket) -> None:
    """Reads one OK."""
    answer = connection.recv(len(OK), socket.MSG_WAITALL)
    if answer != OK:
        raise Failed(f"the broker answered {answer!r}")


def subscribe(address: Address, topic: str, channel: str, identify: bytes | None = IDENTIFY) -> socket.socket:
    """A connection that consumes, with RDY still 0; without `identify` it does not introduce itself."""
    connection = connect(address)
    if identify is not None:
        connection.sendall(b"IDENTIFY\n" + sized(identify))
        expect_ok(connection)
    connection.sendall(f"SUB {topic} {channel}\n".encode())
    expect_ok(connection)
    return connection


def send_ready(connection: socket.socket, count: int = RDY) -> None:
    """Opens the consumer's window."""
    connection.sendall(b"RDY %d\n" % count)


class Consumer:
    """Messages of one body size, taken and finished as many at a time as a receive buffer holds."""

    def __init__(self, connection: socket.socket, body_size: int = len(BODY)) -> None:
        self.connection = connection
        self._stride = HEAD_SIZE + body_size
        self._ids = struct.Struct(f"{HEAD_SIZE - ID_SIZE}x{ID_SIZE}s{body_size}x")
        self._head = struct.pack(">ii", self._stride - 4, 2)
        self._buffer = bytearray(max(RECEIVE_SIZE, 4 * self._stride))
        self._view = memoryview(self._buffer)
        self._whole = self._rest = 0

    def take(self) -> memoryview:
        """Waits for data; the whole frames received, none if the first is not complete yet."""
        self._view[: self._rest] = self._view[self._whole : self._whole + self._rest]
        received = self.connection.recv_into(self._view[self._rest :])
        if not received:
            raise Failed("the broker closed a consumer's connection")
        end = self._rest + received
        count, self._rest = divmod(end, self._stride)
        self._whole = end - self._rest
        # Any other frame would shift those behind it, so looking at the last one is enough.
        if count and not self._buffer.startswith(self._head, self._whole - self._stride):
            raise Failed(f"not only messages of the expected size: {bytes(self._buffer[:60])!r}")
        return self._view[: self._whole]

    def finish(self, frames: memoryview) -> int:
        """Finishes what `take` gave; returns how many messages it was."""
        ids = [id_ for (id_,) in self._ids.iter_unpack(frames)]
        if ids:
            self.connection.sendall(b"FIN " + b"\nFIN ".join(ids) + b"\n")
        return len(ids)

    def requeue(self, frames: memoryview, delay_ms: int) -> int:
        """Requeues what `take` gave; returns how many messages it was."""
        ids = [id_ for (id_,) in self._ids.iter_unpack(frames)]
        if ids:
            delay = b" %d\n" % delay_ms
            self.connection.sendall(b"REQ " + (delay + b"REQ ").join(ids) + delay)
        return len(ids)


class Takes(Protocol[T]):
    """A consumer that `drain` can use."""

    connection: socket.socket

    def take(self) -> T: ...

    def finish(self, taken: T, /) -> int: ...


def drain(consumers: Sequence[Takes[Any]], messages: int, ready: int = RDY, limit_s: float = float("inf")) -> list[int]:
    """Opens every window, then takes and finishes until `messages` have come in all or the time is over; returns how
    many each one took."""
    taken = dict.fromkeys((consumer.connection.fileno() for consumer in consumers), 0)
    by_descriptor = {consumer.connection.fileno(): consumer for consumer in consumers}
    poller = select.epoll()
    for consumer in consumers:
        poller.register(consumer.connection, select.EPOLLIN)
        send_ready(consumer.connection, ready)
    end_s = time.monotonic() + limit_s
    while messages > 0 and time.monotonic() < end_s:
        for descriptor, _ in poller.poll():
            consumer = by_descriptor[descriptor]
            finished = consumer.finish(consumer.take())
            taken[descriptor] += finished
            messages -= finished
    return list(taken.values())
