"""A topic and its log: reading on, refusals, durability, the byte budget (ARCHITECTURE 3, P1, P4, P6)."""

import pytest

from pynsqd.core.batch import Batch
from pynsqd.core.changes import Change
from pynsqd.wire.errors import StorageError
from tests.support.memory_logs import MemoryLog, MemoryLogs
from tests.support.session_wire import Node


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


def test_what_comes_back_is_kept_when_the_log_is_full() -> None:
    logs = MemoryLogs()
    node = Node(logs)
    client = node.consumer(5, msg_timeout=1000)
    node.publish(b"a", b"b", b"c")
    messages = client.messages()
    logs.logs["t"].failing = "no space left on device"
    client.send(b"REQ " + messages[0].id + b" 0\n")
    node.turn()
    assert [(message.body, message.attempts) for message in client.messages()] == [(b"a", 2)]
    node.advance(s=1)
    again = client.messages()
    assert sorted((message.body, message.attempts) for message in again) == [(b"a", 3), (b"b", 2), (b"c", 2)]
    assert node.broker.health == "NOK - no space left on device"
    logs.logs["t"].failing = ""
    node.checkpoint()
    node.kill()  # what could not be written is where it was first
    assert sorted(node.consumer(5).bodies()) == [b"a", b"b", b"c"]


@pytest.mark.parametrize(("first", "then"), [("memory", "log"), ("log", "memory")])
def test_durability_can_be_changed(first: str, then: str) -> None:
    logs = MemoryLogs()
    node = Node(logs, durability=first)
    consumer = node.consumer(0)
    node.publish(b"a")
    node.topic().set_durability(then)
    node.publish(b"b")
    assert [batch.frames[-1:] for _, _, batch, _ in logs.logs["t"].records] == [b"b" if then == "log" else b"a"]
    node.turn()
    assert node.changes[-1] == Change("durability_set", "t")
    consumer.send(b"RDY 5\n")
    node.turn()
    assert consumer.bodies() == [b"a", b"b"]


def test_memory_durability_writes_what_does_not_fit() -> None:
    logs = MemoryLogs()
    node = Node(logs, durability="memory", mem_queue_size=3)
    consumer = node.consumer(0)
    for number in range(6):
        node.publish(b"%d" % number)
    assert len(logs.logs["t"].records) == 3
    consumer.send(b"RDY 100\n")
    node.turn()
    assert consumer.bodies() == [b"%d" % number for number in range(6)]
    node.publish(b"6")
    assert len(logs.logs["t"].records) == 3


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
