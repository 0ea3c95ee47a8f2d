"""Draining: consumers in a process of their own, two connections per channel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from load.broker import Broker
from load.processes import Job, Start, run
from load.publish import publish_batches
from load.row import Figures
from load.wire import Consumer, drain, subscribe

CONNECTIONS: Final = 2
# Published on top of what is measured: with nothing behind them nsqd lets the last messages wait up to 250 ms in its
# output buffer, which would be a tenth of a run.
TAIL: Final = 25_000


def drain_channels(broker: Broker, topic: str, channels: Sequence[str], messages: int) -> Job[float]:
    """Subscribes, then takes and finishes that many messages per channel; returns the seconds it took."""

    def job(start: Start) -> float:
        consumers = [
            Consumer(subscribe(broker.tcp, topic, channel)) for channel in channels for _ in range(CONNECTIONS)
        ]
        start()
        began = time.monotonic()
        drain(consumers, messages * len(channels))
        return time.monotonic() - began

    return job


def drain_backlog(broker: Broker, messages: int) -> Figures:
    """Publishes first, then measures the draining alone."""
    with broker.topic("channel") as topic:
        publish_batches(broker, topic, messages + TAIL)
        broker.wait_for_depth(topic, "channel", messages + TAIL)
        return run(broker, drain_channels(broker, topic, ["channel"], messages)).rates(messages)


def publish_and_drain(broker: Broker, channels: Sequence[str], messages: int) -> Figures:
    """Publishes and drains at once; a message delivered to each of n channels counts n times."""
    with broker.topic(*channels) as topic:

        def publish(start: Start) -> float:
            start()
            publish_batches(broker, topic, messages + TAIL)
            return 0

        fed = run(broker, drain_channels(broker, topic, channels, messages), publish)
        return fed.rates(messages * len(channels), seconds=fed.results[0])
