"""How long does one connection wait for the OK of a PUB of 200 bytes? One in flight, the next at once."""

import time

from load.broker import Broker
from load.command import main
from load.percentile import percentile_ms
from load.processes import Start, run
from load.publish import SECONDS
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BODY, connect, expect_ok, pub


def measure(broker: Broker) -> Figures:
    with broker.topic() as topic:

        def publish(start: Start) -> list[int]:
            connection = connect(broker.tcp)
            command, now_ns = pub(topic, BODY), time.monotonic_ns
            latencies_ns = []
            start()
            end_ns = now_ns() + int(SECONDS * 1e9)
            began_ns = now_ns()
            while began_ns < end_ns:
                connection.sendall(command)
                expect_ok(connection)
                answered_ns = now_ns()
                latencies_ns.append(answered_ns - began_ns)
                began_ns = answered_ns
            return latencies_ns

        published = run(broker, publish)
    latencies_ns = published.results[0]
    return {
        "p50 ms": percentile_ms(latencies_ns, 50),
        "p99 ms": percentile_ms(latencies_ns, 99),
        "worst ms": max(latencies_ns) / 1e6,
    } | published.rates(len(latencies_ns))


ROW = Row("OK of a PUB 200 B, one in flight on 1 connection", measure, nsqd_flags=NSQD_IN_MEMORY)

if __name__ == "__main__":
    main(ROW)
