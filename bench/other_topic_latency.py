"""How long does a message of one topic wait while another keeps the broker busy? Publish to deliver at 2,000/s.

Open loop (`load/open_loop.py`), one publisher and one consumer that has buffering off. Meanwhile, on another topic:
nothing; MPUBs of 5 MB one after the other; a backlog of 2 M messages that drains as fast as it goes, from disk at both
brokers; a consumer that has asked for 50 MB and reads nothing.
"""

import time
from collections.abc import Callable

from load.broker import Broker
from load.command import main
from load.drain import CONNECTIONS
from load.open_loop import RATE_PER_S, UNBUFFERED, consume_latencies, publish_at_rate
from load.percentile import percentile_ms
from load.processes import Job, Start, run
from load.publish import publish_batches, repeat_for
from load.row import Figures, Row
from load.wire import BODY, Consumer, drain, mpub, send_ready, subscribe

MESSAGES = 2 * RATE_PER_S
SECONDS = MESSAGES / RATE_PER_S
BACKLOG = 2_000_000
LARGE_MPUB = 25_000  # messages of 200 B, and just under the 5 MiB that a command may have by default
LARGE_BODY = b"x" * (256 << 10)
LARGE_BODIES = 200

Busy = Callable[[Broker, str], list[Job[int]]]


def measure(broker: Broker) -> Figures:
    figures: Figures = {}
    for name, busy in BUSY.items():
        with broker.topic("channel") as topic, broker.topic("channel") as other:
            jobs = busy(broker, other)
            consume = consume_latencies(broker, topic, "channel", MESSAGES, UNBUFFERED)
            done = run(broker, consume, publish_at_rate(broker, topic, MESSAGES), *jobs)
        latencies_ns, late_ns, *handled = done.results
        figures |= {
            f"{name}, p50 ms": percentile_ms(latencies_ns, 50),
            f"{name}, p99 ms": percentile_ms(latencies_ns, 99),
            f"{name}, worst ms": max(latencies_ns) / 1e6,
            f"{name}, publisher late p99 ms": percentile_ms(late_ns, 99),
        }
        figures |= {f"{name}, other topic's messages/s": count / done.seconds for count in handled if count}
    return figures


def _nothing(broker: Broker, topic: str) -> list[Job[int]]:
    return []


def _large_mpubs(broker: Broker, topic: str) -> list[Job[int]]:
    publish = repeat_for(broker, mpub(topic, [BODY] * LARGE_MPUB), SECONDS)
    return [lambda start: publish(start) * LARGE_MPUB]


def _drained_backlog(broker: Broker, topic: str) -> list[Job[int]]:
    publish_batches(broker, topic, BACKLOG)
    broker.wait_for_depth(topic, "channel", BACKLOG)

    def consume(start: Start) -> int:
        consumers = [Consumer(subscribe(broker.tcp, topic, "channel")) for _ in range(CONNECTIONS)]
        start()
        return sum(drain(consumers, BACKLOG, limit_s=SECONDS))

    return [consume]


def _slow_reader(broker: Broker, topic: str) -> list[Job[int]]:
    publish_batches(broker, topic, LARGE_BODIES, LARGE_BODY, batch=10)

    def hang(start: Start) -> int:
        connection = subscribe(broker.tcp, topic, "channel")
        start()
        send_ready(connection)
        time.sleep(SECONDS)
        return 0

    return [hang]


BUSY = {
    "nothing else": _nothing,
    "5 MB MPUBs": _large_mpubs,
    "a backlog drains": _drained_backlog,
    "a slow reader": _slow_reader,
}

ROW = Row(
    "publish to deliver at 2,000/s, 200 B, while another topic is busy",
    measure,
    targets={f"{name}, p99 ms": "under 20 ms" for name in BUSY},
)

if __name__ == "__main__":
    main(ROW)
