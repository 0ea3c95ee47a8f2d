"""A channel's backlog: reading on from the log, for one and for many, and the byte budget (ARCHITECTURE 3, P4)."""

import pytest

from pynsqd.core.batch import Batch
from pynsqd.wire.errors import StorageError
from tests.support.memory_logs import MemoryLog, MemoryLogs
from tests.support.session_wire import Client, Node, mpub

# -- reading on ------------------------------------------------------------------------------------------------------


def test_a_log_that_could_not_be_read_is_tried_again() -> None:
    class Unreadable(MemoryLog):
        broken = True
        reads = 0

        def read(self, position: int, stop: int, max_bytes: int) -> tuple[list[Batch], int, int]:
            self.reads += 1
            if self.broken:
                raise StorageError("read t: input/output error")
            return super().read(position, stop, max_bytes)

    logs = MemoryLogs()
    log = logs.logs["t"] = Unreadable()
    node = Node(logs)
    node.publish(b"a")
    client = node.consumer(10)
    assert client.take() == []
    assert node.broker.health == "NOK - read t: input/output error"
    log.reads = 0
    node.advance(s=20)
    assert 10 < log.reads < 30  # no busy loop
    log.broken = False
    node.broker.failing.clear()  # the probe found it working again
    node.advance(s=5)
    assert client.bodies() == [b"a"]


def test_an_ephemeral_channel_takes_what_waits_as_far_as_it_fits_and_no_more_claims() -> None:
    node = Node(mem_queue_size=3)
    for number in range(3):
        node.publish(b"%d" % number)
    node.topic().pause()
    client = node.consumer(0, channel=b"c#ephemeral")
    for number in range(3, 6):
        node.publish(b"%d" % number)
    node.topic().unpause()
    node.turn()
    channel = node.channel("c#ephemeral")
    assert channel.message_count == 6
    assert channel.depth >= 3
    client.send(b"RDY 100\n")
    node.turn()
    bodies = client.bodies()
    assert bodies[:3] == [b"0", b"1", b"2"]
    node.publish(b"new")
    assert client.bodies() == [b"new"]
    assert channel.depth == 0


def test_an_ephemeral_channel_that_was_emptied_while_its_topic_was_paused_gets_each_message_once() -> None:
    node = Node()
    client = node.consumer(0, channel=b"c#ephemeral")
    node.topic().pause()
    node.channel("c#ephemeral").empty()
    node.publish(b"a")
    node.topic().unpause()
    node.turn()
    node.publish(b"b")
    assert node.channel("c#ephemeral").depth == 2
    client.send(b"RDY 10\n")
    node.turn()
    assert client.bodies() == [b"a", b"b"]


# -- reading on for many consumers -----------------------------------------------------------------------------------


def _behind(consumers: int, body: bytes, count: int, **options: int) -> tuple[Node, list[Client]]:
    """Return a channel with that many messages in the log only, and consumers that have not said RDY."""
    node = Node(**({"mem_queue_size": 2000} | options))
    clients = [node.consumer(0) for _ in range(consumers)]
    publisher = node.client()
    for _ in range(count // 20):
        publisher.send(mpub(b"t", [body] * 20))
        node.turn()
    for channel in node.topic().channels.values():
        channel.resume(0, 0, [], set())
    return node, clients


def test_each_of_many_is_given_enough_to_be_worth_a_write() -> None:
    node, clients = _behind(50, b"x" * 3000, 6000)
    for client in clients:
        client.session.receive(b"RDY 16\n", node.now_ns)
    node.broker.end_turn(node.now_ns, node.wall_ns)
    assert {client.session.consumer.message_count for client in clients if client.session.consumer} == {16}
    assert all(len(client.session.frames) <= 3 for client in clients)


def test_no_more_is_read_for_many_than_memory_allows() -> None:
    node, clients = _behind(50, b"x" * 3000, 6000, mem_queue_bytes=100_000)
    for client in clients:
        client.session.receive(b"RDY 16\n", node.now_ns)
    most = 0
    read = node.topic().log.read  # type: ignore[union-attr]

    def watched(position: int, stop: int, max_bytes: int) -> object:
        nonlocal most
        most = max(most, node.broker.buffered_bytes)
        return read(position, stop, max_bytes)

    node.topic().log.read = watched  # type: ignore[union-attr, method-assign, assignment]
    node.broker.end_turn(node.now_ns, node.wall_ns)
    assert most < 100_000
    assert sum(client.session.consumer.message_count for client in clients if client.session.consumer) == 800


def test_reading_on_takes_no_turn_of_its_own() -> None:
    node, (client,) = _behind(1, b"x", 100)
    node.turn()
    turns = node.turns
    client.send(b"RDY 100\n")
    node.turn()
    assert (len(client.messages()), node.turns) == (100, turns + 1)


# -- the byte budget -------------------------------------------------------------------------------------------------


def test_the_byte_budget_of_the_node_is_shared() -> None:
    """--mem-queue-bytes: what is beyond it waits in the log, and nothing is lost by it."""
    node = Node(mem_queue_bytes=100_000)
    one, two = node.consumer(0, channel=b"one"), node.consumer(0, channel=b"two")
    other = node.consumer(0, topic=b"u")
    for _ in range(40):
        node.publish(*[b"x" * 1000] * 5)
        node.publish(*[b"x" * 1000] * 5, topic=b"u")
    assert node.broker.buffered_bytes < 100_000 + 3 * 6000
    for client in (one, two, other):
        client.send(b"RDY 2500\n")
        node.turn()
        assert len(client.messages()) == 200
        assert node.broker.buffered_bytes < 100_000 + 300_000
    assert node.broker.buffered_bytes == 0


@pytest.mark.parametrize("how", ["empty", "delete channel", "delete topic"])
def test_what_is_dropped_gives_its_bytes_back(how: str) -> None:
    node = Node()
    client = node.consumer(2)
    node.publish(*[b"x" * 100] * 10)
    assert node.broker.buffered_bytes > 800
    if how == "empty":
        node.channel().empty()
    elif how == "delete channel":
        node.topic().delete_channel("c")
    else:
        node.broker.delete_topic("t")
    node.turn()
    client.drop()
    assert node.broker.buffered_bytes == 0
