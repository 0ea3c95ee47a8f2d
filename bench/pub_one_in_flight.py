"""How fast does the broker answer single PUBs of 200 bytes? Two connections, one PUB in flight on each."""

from load.broker import Broker
from load.command import main
from load.processes import run
from load.publish import CONNECTIONS, repeat_for
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BODY, pub


def measure(broker: Broker) -> Figures:
    with broker.topic() as topic:
        published = run(broker, *[repeat_for(broker, pub(topic, BODY))] * CONNECTIONS)
        return published.rates(sum(published.results))


ROW = Row(
    "PUB 200 B, one in flight on each of 2 connections",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={"messages/s": "at least 1.0, goal 1.4"},
)

if __name__ == "__main__":
    main(ROW)
