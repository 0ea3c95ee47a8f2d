"""What do TLS, snappy and deflate cost a broker, per message of 200 bytes of JSON? Batches of 200 in, RDY 2500 out."""

import json
import random
import struct
import time

from load.broker import Broker
from load.command import main
from load.drain import TAIL
from load.layered import Layered, certificate_flags, connect_layered
from load.processes import Job, Start, run
from load.row import NSQD_IN_MEMORY, Figures, Row
from load.wire import BATCH, HEAD_SIZE, ID_SIZE, RDY, mpub

SIZE = 200
MESSAGES = 200_000
FRAME = HEAD_SIZE + SIZE
IDS = struct.Struct(f"{HEAD_SIZE - ID_SIZE}x{ID_SIZE}s{SIZE}x")


def bodies() -> list[bytes]:
    """A batch that compresses to about a third, as events in JSON do."""
    draw = random.Random(1)
    found = []
    for number in range(BATCH):
        event = {"id": draw.randrange(10**12), "user": f"user-{draw.randrange(10**6)}", "at": 1.7e9 + number / 7}
        event |= {"kind": draw.choice(["view", "click", "buy"]), "path": f"/shop/items/{draw.randrange(10**5)}"}
        found.append(json.dumps(event | {"agent": "Mozilla/5.0 (X11; Linux x86_64)"}).ljust(SIZE)[:SIZE].encode())
    return found


def publish(broker: Broker, topic: str, layers: tuple[str, ...]) -> Job[float]:
    def job(start: Start) -> float:
        command = mpub(topic, bodies())
        connection = connect_layered(broker.tcp, layers)
        start()
        for _ in range((MESSAGES + TAIL) // BATCH):
            connection.sendall(command)
            connection.expect_ok()
        return 0

    return job


def consume(broker: Broker, topic: str, layers: tuple[str, ...]) -> Job[float]:
    def job(start: Start) -> float:
        connection = connect_layered(broker.tcp, layers)
        connection.sendall(f"SUB {topic} channel\n".encode())
        connection.expect_ok()
        start()
        began = time.monotonic()
        connection.sendall(b"RDY %d\n" % RDY)
        _finish_all(connection)
        return time.monotonic() - began

    return job


def _finish_all(connection: Layered) -> None:
    left, data = MESSAGES, b""
    while left > 0:
        data += connection.read()
        whole = len(data) - len(data) % FRAME
        ids = [id_ for (id_,) in IDS.iter_unpack(data[:whole])]
        data = data[whole:]
        if ids:
            connection.sendall(b"FIN " + b"\nFIN ".join(ids) + b"\n")
            left -= len(ids)


def row(question: str, *layers: str) -> Row:
    def measure(broker: Broker) -> Figures:
        with broker.topic("channel") as topic:
            published = run(broker, publish(broker, topic, layers)).rates(MESSAGES + TAIL)
            broker.wait_for_depth(topic, "channel", MESSAGES + TAIL)
            consumed = run(broker, consume(broker, topic, layers)).rates(MESSAGES)
        return {f"in: {name}": value for name, value in published.items()} | {
            f"out: {name}": value for name, value in consumed.items()
        }

    return Row(question, measure, nsqd_flags=NSQD_IN_MEMORY, section="Layers", common_flags=certificate_flags)


ROWS = (
    row("plain"),
    row("TLS", "tls_v1"),
    row("snappy", "snappy"),
    row("deflate", "deflate"),
    row("TLS and snappy", "tls_v1", "snappy"),
    row("TLS and deflate", "tls_v1", "deflate"),
)

if __name__ == "__main__":
    main(*ROWS)
