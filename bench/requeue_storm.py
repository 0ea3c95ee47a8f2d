"""How fast are messages requeued? At once (REQ 0) again and again, and all of a backlog with a delay of one second.

Two consumers with RDY 2500 on one channel. With the delay, time counts from the first REQ until all have come a second
time, less the delay.
"""

import select
import struct
import time
from collections.abc import Callable

from load.broker import Broker
from load.command import main
from load.drain import CONNECTIONS
from load.processes import Start, run
from load.publish import publish_batches
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BODY, Consumer, send_ready, subscribe

WAITING = 20_000
REQUEUED = 400_000
DELAYED = 100_000
DELAY_MS = 1_000
ATTEMPTS_AND_ID = struct.Struct(f">16xH16s{len(BODY)}x")  # of a message frame


def measure(broker: Broker) -> Figures:
    return _at_once(broker) | _delayed(broker)


def _at_once(broker: Broker) -> Figures:
    with broker.topic("channel") as topic:
        publish_batches(broker, topic, WAITING)
        broker.wait_for_depth(topic, "channel", WAITING)

        def requeue(start: Start) -> int:
            consumers = [Consumer(subscribe(broker.tcp, topic, "channel")) for _ in range(CONNECTIONS)]
            start()
            return _take(consumers, REQUEUED, lambda consumer, frames: consumer.requeue(frames, delay_ms=0))

        requeued = run(broker, requeue)
    return {f"REQ 0, {figure}": value for figure, value in requeued.rates(requeued.results[0]).items()}


def _delayed(broker: Broker) -> Figures:
    with broker.topic("channel") as topic:
        publish_batches(broker, topic, DELAYED)
        broker.wait_for_depth(topic, "channel", DELAYED)

        def requeue(start: Start) -> float:
            consumers = [Consumer(subscribe(broker.tcp, topic, "channel")) for _ in range(CONNECTIONS)]
            start()
            began_s = time.monotonic()
            _take(consumers, DELAYED * 2, _requeue_new)
            return time.monotonic() - began_s

        done = run(broker, requeue)
    return {
        f"REQ {DELAY_MS}, s until all came again, delay not counted": done.results[0] - DELAY_MS / 1_000,
        f"REQ {DELAY_MS}, broker CPU µs/message": done.broker_cpu_s / DELAYED * 1e6,
    }


def _requeue_new(consumer: Consumer, frames: memoryview) -> int:
    """Requeues with the delay what came for the first time, and finishes the rest."""
    new, again = bytearray(), bytearray()
    for attempts, id_ in ATTEMPTS_AND_ID.iter_unpack(frames):
        if attempts == 1:
            new += b"REQ %b %d\n" % (id_, DELAY_MS)
        else:
            again += b"FIN %b\n" % id_
    consumer.connection.sendall(new + again)
    return len(frames) // ATTEMPTS_AND_ID.size


def _take(consumers: list[Consumer], messages: int, answer: Callable[[Consumer, memoryview], int]) -> int:
    """Opens every window, then takes and answers until that many messages have come; returns how many."""
    by_descriptor = {consumer.connection.fileno(): consumer for consumer in consumers}
    poller = select.epoll()
    for consumer in consumers:
        poller.register(consumer.connection, select.EPOLLIN)
        send_ready(consumer.connection)
    taken = 0
    while taken < messages:
        for descriptor, _ in poller.poll():
            consumer = by_descriptor[descriptor]
            taken += answer(consumer, consumer.take())
    return taken


ROW = Row(
    f"REQ 0 over and over, then REQ {DELAY_MS} ms of {DELAYED:,} messages, 200 B, 2 connections",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
)

if __name__ == "__main__":
    main(ROW)
