"""Does each of 20 consumers on one channel get its share? All ready all the time, while 500,000 messages drain."""

from load.broker import Broker
from load.command import main
from load.processes import Start, run
from load.publish import publish_batches
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import Consumer, drain, subscribe

CONSUMERS = 20
MESSAGES = 500_000
BEHIND = 100_000  # so that nobody runs dry before the count is over
WINDOWS = (100, 2500)  # RDY


def measure(broker: Broker) -> Figures:
    figures: Figures = {}
    for window in WINDOWS:
        figures |= {f"RDY {window}, {name}": value for name, value in _shares(broker, window).items()}
    return figures


def _shares(broker: Broker, window: int) -> Figures:
    with broker.topic("channel") as topic:
        publish_batches(broker, topic, MESSAGES + BEHIND)
        broker.wait_for_depth(topic, "channel", MESSAGES + BEHIND)

        def consume(start: Start) -> list[int]:
            consumers = [Consumer(subscribe(broker.tcp, topic, "channel")) for _ in range(CONSUMERS)]
            start()
            return drain(consumers, MESSAGES, window)

        drained = run(broker, consume)
    taken = drained.results[0]
    mean = sum(taken) / CONSUMERS
    return {"least share/mean": min(taken) / mean, "largest share/mean": max(taken) / mean} | drained.rates(sum(taken))


ROW = Row(
    f"shares of {CONSUMERS} consumers on one channel, 200 B",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
    targets={f"RDY {window}, least share/mean": "at least 0.5 itself" for window in WINDOWS},
)

if __name__ == "__main__":
    main(ROW)
