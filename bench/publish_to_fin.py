"""What does a message cost the broker from publish to FIN? MPUBs on one connection, two consumers at once."""

from load.broker import Broker
from load.command import main
from load.drain import publish_and_drain
from load.row import NSQD_IN_MEMORY, Figures, Row


def measure(broker: Broker) -> Figures:
    return publish_and_drain(broker, ["channel"], messages=1_000_000)


ROW = Row(
    "publish to FIN, 200 B in MPUBs of 200, published and consumed at once",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={"broker CPU µs/message": "at most 0.6, goal 0.4"},
)

if __name__ == "__main__":
    main(ROW)
