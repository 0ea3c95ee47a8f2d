"""How fast do 64 publishers get an OK that waits for an fsync? `--durability=fsync`, one PUB or MPUB in flight each.

nsqd, in memory, promises less than that; it is there for scale.
"""

from load.broker import Broker
from load.command import main
from load.processes import run
from load.publish import repeat_on
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BATCH, BODY, mpub, pub

PUBLISHERS = 64
PROCESSES = 2


def measure(broker: Broker) -> Figures:
    return _publish(broker, "PUB", [BODY]) | _publish(broker, f"MPUB of {BATCH}", [BODY] * BATCH)


def _publish(broker: Broker, name: str, bodies: list[bytes]) -> Figures:
    with broker.topic() as topic:
        command = mpub(topic, bodies) if len(bodies) > 1 else pub(topic, bodies[0])
        published = run(broker, *[repeat_on(broker, [command], PUBLISHERS // PROCESSES)] * PROCESSES)
        rates = published.rates(sum(published.results) * len(bodies))
    return {f"{name}, {figure}": value for figure, value in rates.items()}


ROW = Row(
    "64 publishers, one command in flight each, 200 B, an OK after the fsync",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    pynsqd_flags=("--durability=fsync",),
    targets={"PUB, messages/s": "at least 0.3, goal 0.6", f"MPUB of {BATCH}, messages/s": "at least 0.3, goal 0.6"},
)

if __name__ == "__main__":
    main(ROW)
