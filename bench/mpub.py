"""How fast does the broker take batches of 200 messages of 200 bytes? Two connections, one MPUB in flight on each."""

from load.broker import Broker
from load.command import main
from load.processes import run
from load.publish import CONNECTIONS, repeat_for
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BATCH, BODY, mpub


def measure(broker: Broker) -> Figures:
    with broker.topic() as topic:
        command = mpub(topic, [BODY] * BATCH)
        before = broker.rss_bytes()
        published = run(broker, *[repeat_for(broker, command)] * CONNECTIONS)
        messages = sum(published.results) * BATCH
        return published.rates(messages) | {"RSS bytes/waiting message": (broker.rss_bytes() - before) / messages}


ROW = Row(
    "MPUB, 200 messages of 200 B, 2 connections",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={"messages/s": "at least 1.0, goal 1.3"},
)

if __name__ == "__main__":
    main(ROW)
