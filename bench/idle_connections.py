"""How much memory does a consumer take that is connected and gets nothing? 5,000 of them on one channel."""

import time

from load.broker import Broker
from load.command import main
from load.processes import Start, run
from load.row import Figures, Row
from load.wire import send_ready, subscribe

CONNECTIONS = 5_000
SETTLE_S = 1.0


def measure(broker: Broker) -> Figures:
    with broker.topic("channel") as topic:

        def connect_all(start: Start) -> float:
            start()
            before = broker.rss_bytes()
            connections = [subscribe(broker.tcp, topic, "channel") for _ in range(CONNECTIONS)]
            for connection in connections:
                send_ready(connection)
            time.sleep(SETTLE_S)
            return broker.rss_bytes() - before

        connected = run(broker, connect_all)
        return {
            "RSS bytes/connection": connected.results[0] / CONNECTIONS,
            "broker CPU µs/connection": connected.broker_cpu_s / CONNECTIONS * 1e6,
        }


ROW = Row(
    "idle consumer connection, 5,000 on one channel",
    measure,
    targets={"RSS bytes/connection": "at most 20 KB, goal 8 KB"},
)

if __name__ == "__main__":
    main(ROW)
