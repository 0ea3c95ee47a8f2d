"""The regression guard of the hot loops: bytecodes a message and memory a message, against what is written down here.

Time depends on the machine's mood, the number of bytecodes does not. They are those of CPython 3.11, other versions
compile to others. Who makes a loop cheaper writes the new figure down; who needs more says why.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from pynsqd.httpapi.ingest import Ingest
from pynsqd.net.connection import Connection
from pynsqd.net.door import Door
from pynsqd.net.persistence import Metadata, Persistence
from pynsqd.net.turn import Turn
from pynsqd.storage.checkpoint import Checkpoint
from pynsqd.storage.log_store import LogStore
from tests.support.cost import blocks, bytecodes
from tests.support.session_wire import Client, Node, command, mpub

BODY = b"x" * 200
POST = b"POST /pub?topic=t HTTP/1.1\r\nHost: n\r\nContent-Length: 200\r\n\r\n" + BODY
BATCH = 200
TOLERANCE = 1.03

counted = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bytecodes written down are CPython 3.11's")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(LogStore(tmp_path, 100 << 20, lambda *_: None))
    yield node
    for topic in list(node.broker.topics):
        node.broker.delete_topic(topic)


def _cost(work: Callable[[], object], messages: int = 1) -> float:
    """Return the bytecodes a message, once everything has warmed up."""
    work()
    work()
    return bytecodes(work) / messages


def _end(node: Node, *clients: Client) -> list[bytes]:
    """Do what a turn does, and return what the clients are sent, uncut."""
    node.broker.end_turn(node.now_ns, node.wall_ns)
    node.broker.take_output()
    return [b"".join(client.session.take_output()) for client in clients]


def _fins(output: bytes) -> bytes:
    return b"".join(b"FIN %b\n" % one for one in re.findall(rb"\0\0\0\x02.{8}\0\x01(.{16})", output, re.DOTALL))


@counted
def test_a_lone_pub(node: Node) -> None:
    client = node.client()
    pub = command(b"PUB t", BODY)

    def work() -> None:
        client.session.receive(pub, node.now_ns)
        _end(node, client)

    assert _cost(work) <= 838 * TOLERANCE


@counted
@pytest.mark.parametrize(("bodies", "expected"), [([BODY] * BATCH, 8.3), ([BODY, b"y" * 120] * (BATCH // 2), 55.0)])
def test_a_batch(bodies: list[bytes], expected: float, node: Node) -> None:
    client = node.client()
    batch = mpub(b"t", bodies)

    def work() -> None:
        client.session.receive(batch, node.now_ns)
        _end(node, client)

    assert _cost(work, BATCH) <= expected * TOLERANCE


@counted
@pytest.mark.parametrize(("channels", "expected"), [(1, 30.4), (8, 14.7)])
def test_a_message_from_the_batch_to_its_fin(channels: int, expected: float, node: Node) -> None:
    """What is done once for a topic counts for each of its channels the less the more there are."""
    consumers = [node.consumer(2500, channel=b"c%d" % number) for number in range(channels)]
    client = node.client()
    batch = mpub(b"t", [BODY] * BATCH)

    def publish() -> list[bytes]:
        client.session.receive(batch, node.now_ns)
        return _end(node, *consumers)

    def finish(outputs: list[bytes]) -> None:
        for consumer, output in zip(consumers, outputs, strict=True):
            consumer.session.receive(output, node.now_ns)
        _end(node, *consumers)

    deliver = _cost(publish)
    outputs = [[_fins(output) for output in publish()] for _ in range(3)]
    finishing = [bytecodes(lambda fins=fins: finish(fins)) for fins in outputs][-1]
    assert (deliver + finishing) / BATCH / channels <= expected * TOLERANCE


@counted
def test_a_requeue(node: Node) -> None:
    consumer = node.consumer(BATCH)
    node.publish(*[BODY] * BATCH)
    ids = [message.id for message in consumer.messages()]
    requeue = b"".join(b"REQ %b 0\n" % one for one in ids)

    def work() -> None:
        consumer.session.receive(requeue, node.now_ns)
        _end(node, consumer)

    assert _cost(work, BATCH) <= 154 * TOLERANCE


@counted
def test_a_deferred_message(node: Node) -> None:
    client = node.client()
    node.broker.topic("t").channel("c")
    dpub = command(b"DPUB t 1000", BODY) * BATCH

    def work() -> None:
        client.session.receive(dpub, node.now_ns)
        _end(node, client)

    assert _cost(work, BATCH) <= 520 * TOLERANCE


class _Turn:
    def __init__(self, node: Node) -> None:
        self.broker = node.broker

    def touch(self, connection: object) -> None:
        """Nothing: the test flushes."""


class _Transport:
    def get_extra_info(self, name: str) -> tuple[str, int]:
        return ("10.0.0.1", 5)

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        """Nothing."""


class _Loop:
    """Calls what is to be called soon when it is told to, and nothing of what is to be called later."""

    def __init__(self) -> None:
        self._ready: list[Callable[[], None]] = []
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self.call_later = loop.call_later

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._ready.append(callback)

    def run_once(self) -> None:
        ready, self._ready = self._ready, []
        for callback in ready:
            callback()


@counted
async def test_ten_posts_in_a_turn(node: Node) -> None:
    door = Door("HTTP", 0, b"", lambda *_, **__: None)
    ingest = Ingest(_Turn(node), node.broker.options, door)  # type: ignore[arg-type]
    connections = [ingest.connection() for _ in range(10)]
    for connection in connections:
        connection.connection_made(_Transport())  # type: ignore[arg-type]

    def work() -> None:
        for connection in connections:
            connection.data_received(POST)
        _end(node)
        for connection in connections:
            connection.flush()

    try:
        assert _cost(work, len(connections)) <= 232 * TOLERANCE
    finally:
        ingest.connections.clear()
        ingest.close()


@counted
async def test_a_turn_for_each(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole turn, from the read to the write, of a publish that comes alone: by PUB, and by POST."""
    monkeypatch.setattr("pynsqd.net.turn.LOOK_AGAIN_NS", 1 << 62)  # the loop goes on looking however slow the trace is
    monkeypatch.setattr("pynsqd.net.turn.time_ns", lambda: node.wall_ns)  # a new tick of the ids takes 22 more
    turn = Turn(node.broker, lambda _: None)
    loop = turn._loop = _Loop()  # type: ignore[assignment]
    checkpoint = Checkpoint(tmp_path)
    persistence = Persistence(node.broker, checkpoint, Mock(), turn.schedule, Mock(spec=Metadata))
    turn.after_turn = persistence.after_turn
    door = Door("", 0, b"", lambda *_, **__: None)
    client = Connection(turn, door)
    ingest = Ingest(turn, node.broker.options, door)
    poster = ingest.connection()
    for connection in (client, poster):
        connection.connection_made(_Transport())  # type: ignore[arg-type]

    def read(data: bytes) -> None:
        client.get_buffer(-1)[: len(data)] = data
        client.buffer_updated(len(data))
        loop.run_once()

    def post() -> None:
        poster.data_received(POST)
        loop.run_once()

    read(b"  V2")
    try:
        assert _cost(lambda: read(command(b"PUB t", BODY))) <= 1108 * TOLERANCE
        assert _cost(post) <= 1018 * TOLERANCE
    finally:
        ingest.connections.clear()
        ingest.close()
        turn.close()
        await persistence.close()
        checkpoint.close()


@pytest.mark.parametrize(("mem_queue_size", "at_most"), [(1_000_000, 0.1), (10, 0.01)])
def test_a_message_that_waits_holds_no_object(mem_queue_size: int, at_most: float, tmp_path: Path) -> None:
    """In memory a batch is a few objects for all of its messages; beyond --mem-queue-size it is none at all."""
    node = Node(LogStore(tmp_path, 100 << 20, lambda *_: None), mem_queue_size=mem_queue_size)
    node.broker.topic("t").channel("c")
    client = node.client()
    batch = mpub(b"t", [BODY] * BATCH)

    def work() -> None:
        for _ in range(50):
            client.session.receive(batch, node.now_ns)
            _end(node, client)

    work()
    try:
        assert blocks(work) / (50 * BATCH) <= at_most
    finally:
        node.broker.delete_topic("t")
