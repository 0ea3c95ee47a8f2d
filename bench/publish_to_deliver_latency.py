"""How long from publish to delivery at a steady 2,000 messages a second?

Open loop: latency counts from the time at which a message was due to be sent (`load/open_loop.py`). One publisher; one
consumer with RDY 2500, which first sends no IDENTIFY (nsqd then buffers up to 250 ms) and in a second run turns
buffering off.
"""

from load.broker import Broker
from load.command import main
from load.open_loop import RATE_PER_S, UNBUFFERED, consume_latencies, publish_at_rate
from load.percentile import percentile_ms
from load.processes import run
from load.row import NSQD_IN_MEMORY, Figures, Row

MESSAGES = 3 * RATE_PER_S


def measure(broker: Broker) -> Figures:
    return _latency(broker, None, "buffered") | _latency(broker, UNBUFFERED, "unbuffered")


def _latency(broker: Broker, identify: bytes | None, kind: str) -> Figures:
    with broker.topic("channel") as topic:
        consume = consume_latencies(broker, topic, "channel", MESSAGES, identify)
        done = run(broker, consume, publish_at_rate(broker, topic, MESSAGES))
    latencies_ns, late_ns = done.results
    return {
        f"{kind} consumer, p50 ms": percentile_ms(latencies_ns, 50),
        f"{kind} consumer, p99 ms": percentile_ms(latencies_ns, 99),
        f"{kind} consumer, publisher late p99 ms": percentile_ms(late_ns, 99),
        f"{kind} consumer, broker CPU µs/message": done.broker_cpu_s / MESSAGES * 1e6,
    }


ROW = Row(
    "publish to deliver at 2,000/s, 200 B",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={"buffered consumer, p99 ms": "under 2 ms, goal 0.8 ms"},
)

if __name__ == "__main__":
    main(ROW)
