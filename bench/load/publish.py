"""Publishing: the loops of the publishing rows, and the backlog that the draining rows start from."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from itertools import cycle
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


def repeat_on(broker: Broker, commands: Sequence[bytes], connections: int, seconds: float = SECONDS) -> Job[int]:
    """As `repeat_for`, on many connections of one process. The commands are sent in turn, each on the next connection
    that has been answered."""

    def job(start: Start) -> int:
        opened = [connect(broker.tcp) for _ in range(connections)]
        by_descriptor = {connection.fileno(): connection for connection in opened}
        poller = select.epoll()
        for connection in opened:
            poller.register(connection, select.EPOLLIN)
        in_turn = cycle(commands)
        start()
        answered, end = 0, time.monotonic() + seconds
        for connection in opened:
            connection.sendall(next(in_turn))
        while time.monotonic() < end:
            for descriptor, _ in poller.poll(seconds):
                connection = by_descriptor[descriptor]
                expect_ok(connection)
                connection.sendall(next(in_turn))
                answered += 1
        return answered

    return job


def publish_batches(broker: Broker, topic: str, messages: int, body: bytes = BODY, batch: int = BATCH) -> None:
    """Publishes that many bodies in batches, one in flight."""
    command = mpub(topic, [body] * batch)
    connection = connect(broker.tcp)
    for _ in range(messages // batch):
        connection.sendall(command)
        expect_ok(connection)
    connection.close()
