"""How fast does one topic feed eight channels? Published and consumed at once, two consumers a channel."""

from load.broker import Broker
from load.command import main
from load.drain import publish_and_drain
from load.row import NSQD_IN_MEMORY, Figures, Row

CHANNELS = [f"channel_{number}" for number in range(8)]


def measure(broker: Broker) -> Figures:
    return publish_and_drain(broker, CHANNELS, messages=150_000)


ROW = Row(
    "one topic into 8 channels, 200 B, 16 connections, each delivery a message",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={"messages/s": "at least 1.3, goal 2.5"},
)

if __name__ == "__main__":
    main(ROW)
