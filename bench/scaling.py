"""Do rate and CPU per message stay flat as topics, channels, consumers, bodies and backlogs grow? A table per axis.

What an axis does not say is as in publish_to_fin.py: bodies of 200 bytes in MPUBs of 200, one topic, one channel, two
consumers with RDY 2500, published and consumed at once. With many topics nsqd runs with its default memory queue, as it
sets the memory aside for each; else with one of 10 million.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from load.broker import Broker
from load.command import main
from load.drain import TAIL, Load, drain_backlog, publish_and_drain
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BATCH, RDY
from many_topics import pass_through

MESSAGES = 500_000
TOPICS = (1, 10, 100, 1_000)
CHANNELS = (1, 4, 16, 64)
CONSUMERS = (1, 10, 100, 1_000, 10_000)
BODY_SIZES = (16, 200, 4 << 10, 64 << 10, 512 << 10)
BACKLOGS = (0, 100_000, 1_000_000, 10_000_000)


def measure_topics(broker: Broker, count: int) -> Figures:
    with ExitStack() as stack:
        topics = [stack.enter_context(broker.topic("channel")) for _ in range(count)]
        return pass_through(broker, topics, batch=20, commands=10_000)


def measure_channels(broker: Broker, count: int) -> Figures:
    channels = [f"channel_{number}" for number in range(count)]
    return publish_and_drain(broker, channels, max(MESSAGES // count, TAIL))


def measure_consumers(broker: Broker, count: int) -> Figures:
    # A window of 5,000 in all, as a client library shares it out, but no less than ten each.
    ready = min(RDY, max(10, 2 * RDY // count))
    # Each consumer may hold a window when the count is reached, and nobody is to run dry before that.
    tail = max(TAIL, 2 * ready * count)
    return drain_backlog(broker, MESSAGES, Load(connections=count, ready=ready, tail=tail))


def measure_bodies(broker: Broker, size: int) -> Figures:
    messages = min(MESSAGES, (500 << 20) // size)
    load = Load(
        body=b"x" * size,
        batch=max(1, min(BATCH, (4 << 20) // size)),
        ready=min(RDY, (16 << 20) // size),
        tail=min(TAIL, (64 << 20) // size),
    )
    figures = publish_and_drain(broker, ["channel"], messages, load)
    return {"MB/s": figures["messages/s"] * size / 1e6} | figures


def measure_backlog(broker: Broker, waiting: int) -> Figures:
    return publish_and_drain(broker, ["channel"], MESSAGES, waiting=waiting)


def backlog_row(waiting: int) -> Row:
    return Row(
        f"waiting before: {waiting:,} messages",
        partial(measure_backlog, waiting=waiting),
        nsqd_flags=NSQD_IN_MEMORY,
        section="Backlog, published and consumed at once behind it",
        at_most=lambda most: backlog_row(min(waiting, most - most % BATCH)),
    )


def rows() -> Iterator[Row]:
    in_memory = partial(Row, nsqd_flags=NSQD_IN_MEMORY)
    for count in TOPICS:
        section = "Topics, each with a channel and a consumer with buffering off, MPUBs of 20 to each in turn"
        yield Row(f"topics: {count:,}", partial(measure_topics, count=count), section=section)
    for count in CHANNELS:
        section = "Channels of a topic, each delivery a message"
        yield in_memory(f"channels: {count}", partial(measure_channels, count=count), section=section)
    for count in CONSUMERS:
        section = "Consumers of a channel that drain its backlog"
        yield in_memory(f"consumers: {count:,}", partial(measure_consumers, count=count), section=section)
    for size in BODY_SIZES:
        yield in_memory(f"bodies of {size:,} B", partial(measure_bodies, size=size), section="Body size")
    for waiting in BACKLOGS:
        yield backlog_row(waiting)


ROWS = tuple(rows())

if __name__ == "__main__":
    main(*ROWS)
