"""How fast do messages go through 1,000 topics, each with a channel and a consumer of its own?

Small MPUBs go to each topic in turn, then single PUBs likewise, on one connection with one command in flight. nsqd runs
with its default memory queue, as it sets the memory aside for every topic and channel; nothing has to wait here.
"""

from contextlib import ExitStack
from itertools import cycle, islice

from load.broker import Broker
from load.command import main
from load.open_loop import UNBUFFERED
from load.processes import Start, run
from load.row import Figures, Row
from load.wire import BODY, Consumer, connect, drain, expect_ok, mpub, pub, subscribe

TOPICS = 1_000


def measure(broker: Broker) -> Figures:
    with ExitStack() as stack:
        topics = [stack.enter_context(broker.topic("channel")) for _ in range(TOPICS)]
        batches = pass_through(broker, topics, batch=20, commands=5_000)
        singles = pass_through(broker, topics, batch=1, commands=20_000)
    return {
        f"{name}, {figure}": value
        for name, figures in (("MPUB of 20", batches), ("PUB", singles))
        for figure, value in figures.items()
    }


def pass_through(broker: Broker, topics: list[str], batch: int, commands: int) -> Figures:
    """Publishes to each topic in turn, and drains them all at once."""

    def publish(start: Start) -> None:
        connection = connect(broker.tcp)
        encoded = [mpub(topic, [BODY] * batch) if batch > 1 else pub(topic, BODY) for topic in topics]
        start()
        for command in islice(cycle(encoded), commands):
            connection.sendall(command)
            expect_ok(connection)

    def consume(start: Start) -> None:
        # Not buffered: each connection gets few messages, and nsqd would hold the last ones back for 250 ms.
        connections = [subscribe(broker.tcp, topic, "channel", UNBUFFERED) for topic in topics]
        start()
        drain([Consumer(connection) for connection in connections], messages)

    messages = commands * batch
    return run(broker, consume, publish).rates(messages)


ROW = Row(
    "publish to FIN, 200 B, to 1,000 topics in turn, a channel and a consumer each",
    measure,
)

if __name__ == "__main__":
    main(ROW)
