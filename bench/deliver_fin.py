"""How fast do waiting messages of 200 bytes reach two consumers with RDY 2500 that finish them?"""

from load.broker import Broker
from load.command import main
from load.drain import drain_backlog
from load.row import NSQD_IN_MEMORY, Figures, Row


def measure(broker: Broker) -> Figures:
    return drain_backlog(broker, messages=1_000_000)


ROW = Row(
    "deliver + FIN, 200 B, RDY 2500, 2 connections, 1 M messages wait",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={"messages/s": "at least 1.2, goal 1.6"},
)

if __name__ == "__main__":
    main(ROW)
