"""How fast are messages of 356 bytes taken by POST /pub when each comes on a connection of its own, ten at a time?"""

from load.broker import Broker
from load.command import main
from load.http_post import measure as measure_posts
from load.http_post import tool
from load.row import NSQD_IN_MEMORY, Figures, Row


def measure(broker: Broker) -> Figures:
    return measure_posts(broker, keep_alive=False)


ROW = Row(
    f"POST /pub 356 B, a connection each, 10 at a time, by {tool()}",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
)

if __name__ == "__main__":
    main(ROW)
