"""How fast are messages of 356 bytes taken by POST /pub on ten connections that stay open?"""

from load.broker import Broker
from load.command import main
from load.http_post import measure as measure_posts
from load.http_post import tool
from load.row import NSQD_IN_MEMORY, Figures, Row


def measure(broker: Broker) -> Figures:
    return measure_posts(broker, keep_alive=True)


ROW = Row(
    f"POST /pub 356 B, keep-alive, 10 connections, by {tool()}",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={"messages/s": "at least 1.4, goal 2"},
)

if __name__ == "__main__":
    main(ROW)
