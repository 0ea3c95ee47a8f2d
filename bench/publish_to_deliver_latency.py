"""How long from publish to delivery at a steady 2,000 messages a second?

Open loop: every message has a time at which it is due, sends wait for no answer, and latency counts from the due time,
so a stall of the broker counts for every message that falls into it. One publisher; one consumer with RDY 2500, which
first sends no IDENTIFY (nsqd then buffers up to 250 ms) and in a second run turns buffering off.
"""

import socket
import struct
import time
from contextlib import suppress

from load.broker import Broker
from load.command import main
from load.percentile import percentile_ms
from load.processes import Start, run
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BODY, HEAD_SIZE, Consumer, connect, pub, send_ready, subscribe

RATE_PER_S = 2_000
MESSAGES = 3 * RATE_PER_S
SPIN_NS = 100_000  # a sleep ends about this late, so the last of the wait is spun away
DUE = struct.Struct(">q")
DUE_IN_FRAME = struct.Struct(f">{HEAD_SIZE}xq{len(BODY) - DUE.size}x")
UNBUFFERED = b'{"client_id":"bench","output_buffer_size":-1}'


def measure(broker: Broker) -> Figures:
    return _latency(broker, None, "buffered") | _latency(broker, UNBUFFERED, "unbuffered")


def _latency(broker: Broker, identify: bytes | None, kind: str) -> Figures:
    with broker.topic("channel") as topic:

        def publish(start: Start) -> list[int]:
            connection = connect(broker.tcp)
            start()
            late_ns = []
            due_ns = time.monotonic_ns()
            for _ in range(MESSAGES):
                due_ns += 1_000_000_000 // RATE_PER_S
                _wait_until(due_ns)
                late_ns.append(time.monotonic_ns() - due_ns)
                connection.sendall(pub(topic, DUE.pack(due_ns) + BODY[DUE.size :]))
                _drop_answers(connection)
            return late_ns

        def consume(start: Start) -> list[int]:
            connection = subscribe(broker.tcp, topic, "channel", identify)
            consumer = Consumer(connection)
            start()
            send_ready(connection)
            latencies_ns: list[int] = []
            while len(latencies_ns) < MESSAGES:
                frames = consumer.take()
                now_ns = time.monotonic_ns()
                latencies_ns += [now_ns - due_ns for (due_ns,) in DUE_IN_FRAME.iter_unpack(frames)]
                consumer.finish(frames)
            return latencies_ns

        done = run(broker, consume, publish)
    latencies_ns, late_ns = done.results
    return {
        f"{kind} consumer, p50 ms": percentile_ms(latencies_ns, 50),
        f"{kind} consumer, p99 ms": percentile_ms(latencies_ns, 99),
        f"{kind} consumer, publisher late p99 ms": percentile_ms(late_ns, 99),
        f"{kind} consumer, broker CPU µs/message": done.broker_cpu_s / MESSAGES * 1e6,
    }


def _wait_until(due_ns: int) -> None:
    left_ns = due_ns - SPIN_NS - time.monotonic_ns()
    if left_ns > 0:
        time.sleep(left_ns / 1e9)
    while time.monotonic_ns() < due_ns:
        pass


def _drop_answers(connection: socket.socket) -> None:
    with suppress(BlockingIOError):
        connection.recv(1 << 16, socket.MSG_DONTWAIT)


ROW = Row(
    "publish to deliver at 2,000/s, 200 B",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={"buffered consumer, p99 ms": "under 2 ms, goal 0.8 ms"},
)

if __name__ == "__main__":
    main(ROW)
