"""Publishing: the loops of the publishing rows, and the backlog that the draining rows start from."""

from __future__ import annotations

import time
from typing import Final

from load.broker import Broker
from load.failed import Failed
from load.processes import Job, Start
from load.wire import BATCH, BODY, OK, connect, expect_ok, mpub

SECONDS: Final = 3.0
CONNECTIONS: Final = 2


def repeat_for(broker: Broker, command: bytes, seconds: float = SECONDS) -> Job[int]:
    """Sends the command again as soon as it is answered; returns how often. One process per connection: two in one
    process, answered in turn, wait for each other and halve nsqd's rate."""

    def job(start: Start) -> int:
        connection = connect(broker.tcp)
        send, receive, now = connection.sendall, connection.recv, time.monotonic
        start()
        sent, end = 0, now() + seconds
        while now() < end:
            send(command)
            answer = receive(len(OK))
            if answer != OK:
                raise Failed(f"the broker answered {answer!r}")
            sent += 1
        return sent

    return job


def publish_batches(broker: Broker, topic: str, messages: int) -> None:
    """Publishes that many bodies in batches, one in flight."""
    command = mpub(topic, [BODY] * BATCH)
    connection = connect(broker.tcp)
    for _ in range(messages // BATCH):
        connection.sendall(command)
        expect_ok(connection)
    connection.close()
