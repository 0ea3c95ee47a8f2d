"""How late are 30,000 deferred messages that are all due at one moment? DPUBs of 200 bytes, sent without waiting.

One consumer with RDY 2500 is there from the start. A message that comes before it is due makes the row fail.
"""

import socket
import time

from load.broker import Broker
from load.command import main
from load.failed import Failed
from load.open_loop import DUE, consume_latencies
from load.percentile import percentile_ms
from load.processes import Start, run
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BODY, IDENTIFY, OK, connect, dpub

MESSAGES = 30_000
IN_FLIGHT = 100
DUE_IN_NS = 4_000_000_000
MS_NS = 1_000_000


def measure(broker: Broker) -> Figures:
    with broker.topic("channel") as topic:

        def publish(start: Start) -> float:
            connection = connect(broker.tcp)
            start()
            began_ns = time.monotonic_ns()
            moment_ns = began_ns + DUE_IN_NS
            for _ in range(MESSAGES // IN_FLIGHT):
                now_ns = time.monotonic_ns()
                delay_ms = max(0, moment_ns - now_ns) // MS_NS
                body = DUE.pack(now_ns + delay_ms * MS_NS) + BODY[DUE.size :]
                connection.sendall(dpub(topic, delay_ms, body) * IN_FLIGHT)
                _expect_oks(connection)
            took_s = (time.monotonic_ns() - began_ns) / 1e9
            if took_s * 1e9 > DUE_IN_NS:
                raise Failed(f"the DPUBs took {took_s:.1f} s: they were not all due at one moment")
            return took_s

        consume = consume_latencies(broker, topic, "channel", MESSAGES, IDENTIFY)
        done = run(broker, publish, consume)
    published_s, late_ns = done.results
    if min(late_ns) < 0:
        raise Failed(f"a message came {-min(late_ns) / 1e6:.3f} ms before it was due")
    return {
        "DPUBs/s": MESSAGES / published_s,
        "late p50 ms": percentile_ms(late_ns, 50),
        "late p99 ms": percentile_ms(late_ns, 99),
        "broker CPU µs/message": done.broker_cpu_s / MESSAGES * 1e6,
    }


def _expect_oks(connection: socket.socket) -> None:
    answers = connection.recv(len(OK) * IN_FLIGHT, socket.MSG_WAITALL)
    if answers != OK * IN_FLIGHT:
        raise Failed(f"the broker answered {answers[:60]!r}")


ROW = Row(f"{MESSAGES:,} deferred messages of 200 B due at one moment", measure, nsqd_flags=NSQD_IN_MEMORY)

if __name__ == "__main__":
    main(ROW)
