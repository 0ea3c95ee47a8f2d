"""Draining: consumers in a process of their own, two connections per channel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from load.broker import Broker
from load.processes import Job, Start, run
from load.publish import publish_batches
from load.row import Figures
from load.wire import BATCH, BODY, RDY, Consumer, drain, subscribe

CONNECTIONS: Final = 2
# Published on top of what is measured: with nothing behind them nsqd lets the last messages wait up to 250 ms in its
# output buffer, which would be a tenth of a run.
TAIL: Final = 25_000


@dataclass(frozen=True)
class Load:
    """What is sent and how it is taken: batches of bodies; connections per channel, with this RDY each. `tail` messages
    are published on top of what is counted."""

    body: bytes = BODY
    batch: int = BATCH
    connections: int = CONNECTIONS
    ready: int = RDY
    tail: int = TAIL


USUAL: Final = Load()


def drain_channels(
    broker: Broker, topic: str, channels: Sequence[str], messages: int, load: Load = USUAL
) -> Job[float]:
    """Subscribes, then takes and finishes that many messages per channel; returns the seconds it took."""

    def job(start: Start) -> float:
        consumers = [
            Consumer(subscribe(broker.tcp, topic, channel), len(load.body))
            for channel in channels
            for _ in range(load.connections)
        ]
        start()
        began = time.monotonic()
        drain(consumers, messages * len(channels), load.ready)
        return time.monotonic() - began

    return job


def drain_backlog(broker: Broker, messages: int, load: Load = USUAL) -> Figures:
    """Publishes first, then measures the draining alone."""
    with broker.topic("channel") as topic:
        publish_batches(broker, topic, messages + load.tail, load.body, load.batch)
        broker.wait_for_depth(topic, "channel", messages + load.tail)
        return run(broker, drain_channels(broker, topic, ["channel"], messages, load)).rates(messages)


def publish_and_drain(
    broker: Broker, channels: Sequence[str], messages: int, load: Load = USUAL, waiting: int = 0
) -> Figures:
    """Publishes and drains at once, behind `waiting` messages that were there before; a message delivered to each of n
    channels counts n times."""
    with broker.topic(*channels) as topic:
        publish_batches(broker, topic, waiting, load.body, load.batch)
        for channel in channels:
            broker.wait_for_depth(topic, channel, waiting)

        def publish(start: Start) -> float:
            start()
            publish_batches(broker, topic, messages + load.tail, load.body, load.batch)
            return 0

        fed = run(broker, drain_channels(broker, topic, channels, messages, load), publish)
        return fed.rates(messages * len(channels), seconds=fed.results[0])
