"""The wall clock steps and is set back over restarts: due times hold, ids stay unique (PROTOCOL 1.7)."""

from pathlib import Path
from typing import Any

import pytest

from pynsqd.storage.log_store import LogStore
from tests.support.session_wire import OK, Client, Node, S, command

_HOUR = 3600 * S


def _node(folder: Path, **options: Any) -> Node:
    def no_damage(topic: str, text: str) -> None:
        raise AssertionError(f"{topic}: {text}")

    return Node(LogStore(folder, 1 << 20, no_damage), **options)


def _take(client: Client) -> list[bytes]:
    """Finish what has come and return the bodies."""
    messages = client.messages()
    client.send(b"".join(b"FIN %s\n" % message.id for message in messages))
    client.node.turn()
    return [message.body for message in messages]


def _defer(node: Node, seconds: int, body: bytes) -> None:
    client = node.client()
    assert client.ask(command(b"DPUB t %d" % (seconds * 1000), body)) == [OK]


@pytest.mark.parametrize("step_ns", [_HOUR, -_HOUR, 24 * _HOUR, -24 * _HOUR])
def test_steps_while_running(step_ns: int, tmp_path: Path) -> None:
    """Near, next bucket and far: not a millisecond early, and at once when due, whatever the wall clock says."""
    node = _node(tmp_path)
    consumer = node.consumer(10)
    consumer.answers = True
    delays = (5, 100, 400, 1000)
    for delay in delays:
        _defer(node, delay, b"%d" % delay)
    node.wall_offset_ns += step_ns
    passed = 0
    for delay in delays:
        node.advance(s=delay - passed - 0.001)
        assert _take(consumer) == []
        node.advance(s=0.002)
        passed = delay + 0.001
        assert _take(consumer) == [b"%d" % delay]


@pytest.mark.parametrize("step_ns", [0, -_HOUR, -24 * _HOUR])
def test_set_back_while_stopped(step_ns: int, tmp_path: Path) -> None:
    """A clock that was set back makes nothing late: log time goes on where it was."""
    node = _node(tmp_path)
    node.consumer(0)
    _defer(node, 50, b"50")
    _defer(node, 300, b"300")
    node.stop()
    node.wall_offset_ns += step_ns
    node.kill()  # the second start is the one after the step
    consumer = node.consumer(10)
    consumer.answers = True
    node.advance(s=49.9)
    assert _take(consumer) == []
    node.advance(s=0.2)
    assert _take(consumer) == [b"50"]
    node.advance(s=249.8)
    assert _take(consumer) == []
    node.advance(s=0.2)
    assert _take(consumer) == [b"300"]


def test_stepped_forward_while_running_then_restarted(tmp_path: Path) -> None:
    """The step was seen while the node ran, so the restart must not count it as time that has passed."""
    node = _node(tmp_path)
    node.consumer(0)
    _defer(node, 50, b"50")
    node.wall_offset_ns += _HOUR
    node.turn()
    node.stop()
    consumer = node.consumer(10)
    assert _take(consumer) == []


def test_ids_grow_over_steps(tmp_path: Path) -> None:
    node = _node(tmp_path)
    consumer = node.consumer(2500)
    ids: list[bytes] = []
    for step_ns in (0, -_HOUR, _HOUR, -24 * _HOUR, 1):
        node.wall_offset_ns += step_ns
        node.publish(*[b"x"] * 100)
        ids += [message.id for message in consumer.messages()]
    assert len(ids) == 500
    assert ids == sorted(set(ids))


def test_ids_are_not_given_again_when_the_clock_was_set_back(tmp_path: Path) -> None:
    """Two messages of one id in one channel: a FIN of one would finish the other, too."""
    node = _node(tmp_path)
    node.consumer(0)
    wall_ns = node.wall_ns
    node.publish(*[b"old"] * 100)
    node.stop()
    node.wall_offset_ns += wall_ns - node.wall_ns
    node.publish(*[b"new"] * 100)
    consumer = node.consumer(200)
    assert len({message.id for message in consumer.messages()}) == 200


# -- far deferrals ---------------------------------------------------------------------------------------------------


def test_far_messages_are_a_count_until_they_are_near(tmp_path: Path) -> None:
    """Beyond about two minutes only a number is in memory, the figures are right all the time, and so is the time."""
    node = _node(tmp_path)
    consumer = node.consumer(10)
    consumer.answers = True
    for number in range(2500):
        _defer(node, 1000, b"%d" % number)
    deferred = node.channel().deferred
    assert len(deferred) == 2500
    assert sum(deferred.far.values()) == 2500
    assert deferred.next_due_ns == 0
    node.kill()
    assert len(node.channel().deferred) == 2500
    assert sum(node.channel().deferred.far.values()) == 2500
    node.advance(s=990)
    deferred = node.channel().deferred
    assert (len(deferred), deferred.far) == (2500, {})
    consumer = node.consumer(2500)
    assert _take(consumer) == []
    node.advance(s=10)
    assert _take(consumer) == [b"%d" % number for number in range(2500)]
    assert len(deferred) == 0
