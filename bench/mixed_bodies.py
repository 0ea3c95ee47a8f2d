"""How fast do bodies of 16 B, 356 B, 4 KB and 256 KB go through together? In MPUBs, published and consumed at once."""

import struct

from load.broker import Broker
from load.command import main
from load.drain import CONNECTIONS
from load.failed import Failed
from load.processes import Start, run
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import HEAD_SIZE, ID_SIZE, connect, drain, expect_ok, mpub, subscribe

KB = 1024
# Most messages are small, most bytes are in the large ones: the shape of events with a document now and then.
BODIES = [b"x" * 16] * 100 + [b"x" * 356] * 100 + [b"x" * 4 * KB] * 20 + [b"x" * 256 * KB]
BATCHES = 500
BATCHES_BEHIND = 50  # what nsqd holds back in its output buffer must not be waited for
MESSAGES = BATCHES * len(BODIES)
BYTES = BATCHES * sum(map(len, BODIES))
SIZE = struct.Struct(">i")
RECEIVE_SIZE = 1 << 20


class MixedConsumer:
    """Takes messages of any size; as `load.wire.Consumer`, which is faster for those of one size."""

    def __init__(self, address: tuple[str, int], topic: str, channel: str) -> None:
        self.connection = subscribe(address, topic, channel)
        self._received = bytearray()

    def take(self) -> list[bytes]:
        """Waits for data; the ids of the messages that are complete."""
        received = self._received
        more = self.connection.recv(RECEIVE_SIZE)
        if not more:
            raise Failed("the broker closed a consumer's connection")
        received += more
        ids, at, end = [], 0, len(received)
        while at + HEAD_SIZE <= end:
            behind = at + SIZE.size + SIZE.unpack_from(received, at)[0]
            if behind > end:
                break
            if received[at + 7] != 2:  # the frame's type: a message
                raise Failed(f"not a message: {bytes(received[at : at + 60])!r}")
            ids.append(bytes(received[at + HEAD_SIZE - ID_SIZE : at + HEAD_SIZE]))
            at = behind
        del received[:at]
        return ids

    def finish(self, ids: list[bytes]) -> int:
        """Finishes what `take` gave; returns how many messages it was."""
        if ids:
            self.connection.sendall(b"FIN " + b"\nFIN ".join(ids) + b"\n")
        return len(ids)


def measure(broker: Broker) -> Figures:
    with broker.topic("channel") as topic:

        def consume(start: Start) -> None:
            consumers = [MixedConsumer(broker.tcp, topic, "channel") for _ in range(CONNECTIONS)]
            start()
            drain(consumers, MESSAGES)

        def publish(start: Start) -> None:
            connection = connect(broker.tcp)
            command = mpub(topic, BODIES)
            start()
            for _ in range(BATCHES + BATCHES_BEHIND):
                connection.sendall(command)
                expect_ok(connection)

        passed = run(broker, consume, publish)
    rates = passed.rates(MESSAGES)
    return {"MB/s": BYTES / passed.seconds / 1e6} | rates


ROW = Row(
    "publish to FIN, bodies of 16 B to 256 KB mixed, published and consumed at once",
    measure,
    nsqd_flags=NSQD_IN_MEMORY,
)

if __name__ == "__main__":
    main(ROW)
