"""A topic and its log: refusals, durability (ARCHITECTURE 3, P1, P6)."""

import pytest

from pynsqd.core.changes import Change
from tests.support.memory_logs import MemoryLogs
from tests.support.session_wire import Node


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
