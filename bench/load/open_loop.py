"""Open loop: every message has a time at which it is due, sends wait for no answer, and latency counts from the due
time, so a stall of the broker counts for every message that falls into it."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import Final

from load.broker import Broker
from load.failed import Failed
from load.processes import Job, Start
from load.wire import BODY, HEAD_SIZE, OK, Consumer, connect, pub, send_ready, subscribe

RATE_PER_S: Final = 2_000
UNBUFFERED: Final = b'{"client_id":"bench","heartbeat_interval":60000,"output_buffer_size":-1}'
SPIN_NS: Final = 100_000  # a sleep ends about this late, so the last of the wait is spun away
DUE: Final = struct.Struct(">q")
DUE_IN_FRAME: Final = struct.Struct(f">{HEAD_SIZE}xq{len(BODY) - DUE.size}x")


def publish_at_rate(broker: Broker, topic: str, messages: int) -> Job[list[int]]:
    """PUBs that carry their due time, `RATE_PER_S`; returns how late each was sent, in ns."""

    def job(start: Start) -> list[int]:
        connection = connect(broker.tcp)
        start()
        late_ns, answered = [], 0
        due_ns = time.monotonic_ns()
        for _ in range(messages):
            due_ns += 1_000_000_000 // RATE_PER_S
            _wait_until(due_ns)
            late_ns.append(time.monotonic_ns() - due_ns)
            connection.sendall(pub(topic, DUE.pack(due_ns) + BODY[DUE.size :]))
            answered += _answers(connection, socket.MSG_DONTWAIT)
        while answered < messages * len(OK):  # closed before, it would take what is still on its way with it
            answered += _answers(connection)
        return late_ns

    return job


def consume_latencies(
    broker: Broker, topic: str, channel: str, messages: int, identify: bytes | None
) -> Job[list[int]]:
    """Takes and finishes them with RDY 2500; returns the latency of each, in ns."""

    def job(start: Start) -> list[int]:
        connection = subscribe(broker.tcp, topic, channel, identify)
        consumer = Consumer(connection)
        start()
        send_ready(connection)
        latencies_ns: list[int] = []
        while len(latencies_ns) < messages:
            frames = consumer.take()
            now_ns = time.monotonic_ns()
            latencies_ns += [now_ns - due_ns for (due_ns,) in DUE_IN_FRAME.iter_unpack(frames)]
            consumer.finish(frames)
        return latencies_ns

    return job


def _wait_until(due_ns: int) -> None:
    left_ns = due_ns - SPIN_NS - time.monotonic_ns()
    if left_ns > 0:
        time.sleep(left_ns / 1e9)
    while time.monotonic_ns() < due_ns:
        pass


def _answers(connection: socket.socket, flags: int = 0) -> int:
    """How many bytes of answers have come."""
    with suppress(BlockingIOError):
        received = len(connection.recv(1 << 16, flags))
        if not received:
            raise Failed("the broker closed a publisher's connection")
        return received
    return 0
