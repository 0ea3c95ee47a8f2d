"""What a paused topic was emptied of comes to no channel, however far behind it was (PROTOCOL 2.3, semantics)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core.dropped import Dropped
from tests.support.batches import Batches
from tests.support.memory_logs import MemoryLog, MemoryLogs
from tests.support.session_wire import Client, Node, command

KILLS = pytest.mark.parametrize("kill", [False, True])


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 30), st.sampled_from([1, 200, 1 << 20]))
def test_what_is_dropped_is_neither_read_nor_counted(gone: list[bool], begin: int, max_bytes: int) -> None:
    log, batches, dropped = MemoryLog(), Batches(), Dropped()
    places = [(log.end, log.end_sequence)]
    records = []
    for _ in gone:
        batch = batches.new(2)
        log.append(batch)
        records.append(batch)
        places.append((log.end, log.end_sequence))
    for (start, end), drop in zip(pairwise(places), gone, strict=True):
        if drop:
            dropped.add(*start, *end)
    assert all(before.end < after.position for before, after in pairwise(dropped.ranges))
    begin = min(begin, len(gone))
    position, sequence = places[begin]
    left = [batch.ids for batch, drop in list(zip(records, gone, strict=True))[begin:] if not drop]
    if begin and gone[begin - 1] and begin < len(gone) and gone[begin]:
        return  # no cursor stands inside of what was dropped
    assert log.end_sequence - sequence - dropped.count(sequence) == 2 * len(left)
    read = []
    while position < log.end:
        found, position, sequence = dropped.read(log, position, log.end, max_bytes)
        read += [batch.ids for batch in found]
        assert log.end_sequence - sequence - dropped.count(sequence) == 2 * (len(left) - len(read))
    assert read == left


def test_what_nobody_reads_any_more_is_forgotten() -> None:
    dropped = Dropped([(10, 1, 20, 2), (30, 3, 40, 4)])
    dropped.forget(19)
    assert len(dropped.ranges) == 2
    dropped.forget(20)
    assert dropped.ranges == [(30, 3, 40, 4)]
    dropped.forget(40)
    assert dropped.ranges == []


def _consumer(node: Node, channel: bytes = b"c", rdy: int = 100) -> Client:
    client = node.consumer(rdy, channel=channel)
    client.answers = True
    return client


@KILLS
@pytest.mark.parametrize("size", [10_000, 2])
def test_a_channel_that_was_behind_before_the_pause(size: int, kill: bool) -> None:
    """With ``size`` 2 it has to read on from before the pause over what was dropped."""
    node = Node(mem_queue_size=size)
    _consumer(node, rdy=0)
    for number in range(6):
        node.publish(b"%d" % number)
    for name in (b"first", b"second"):
        node.topic().pause()
        node.publish(b"dropped", b"dropped too")
        node.topic().empty()
        assert (node.topic().depth, node.topic().backend_depth) == (0, 0)
        node.publish(name)
        node.topic().unpause()
        node.turn()
    assert node.channel().depth == 8
    if kill:
        node.checkpoint()
        node.kill()
        assert node.channel().depth == 8
    assert _consumer(node).bodies() == [b"0", b"1", b"2", b"3", b"4", b"5", b"first", b"second"]
    assert (node.channel().depth, node.topic().depth) == (0, 0)
    node.checkpoint()
    assert node.topic().dropped.ranges == []


@KILLS
def test_a_channel_that_is_killed_while_the_topic_is_still_paused(kill: bool) -> None:
    node = Node(mem_queue_size=2)
    _consumer(node, rdy=0)
    for number in range(4):
        node.publish(b"%d" % number)
    node.topic().pause()
    node.publish(b"dropped")
    node.topic().empty()
    node.turn()  # the answer to /topic/empty leaves after this
    if kill:
        node.kill()
    assert (node.channel().depth, node.topic().depth) == (4, 0)
    node.publish(b"new")
    client = _consumer(node)
    assert client.bodies() == [b"0", b"1", b"2", b"3"]
    node.topic().unpause()
    node.turn()
    assert client.bodies() == [b"new"]


def test_what_was_dropped_does_not_stay_on_disk() -> None:
    logs = MemoryLogs()
    node = Node(logs)
    client = _consumer(node)
    node.publish(b"x")
    client.send(b"FIN " + client.messages()[0].id + b"\n")
    node.topic().pause()
    node.publish(b"dropped")
    node.topic().empty()
    node.turn()
    assert logs.logs["t"].records == []
    assert node.topic().dropped.ranges == []


@KILLS
@pytest.mark.parametrize("delay_s", [30, 600])
def test_deferred_ones_are_dropped_for_channels_older_than_the_pause(delay_s: int, kill: bool) -> None:
    node = Node()
    older = _consumer(node)
    node.publish(b"own")
    node.topic().pause()
    younger = _consumer(node, b"younger")
    (message,) = older.messages()
    older.send(b"REQ " + message.id + b" %d\n" % (delay_s * 1000))
    node.client().ask(command(b"DPUB t %d" % (delay_s * 1000), b"dropped"))
    node.topic().empty()
    node.turn()
    node.client().ask(command(b"DPUB t %d" % (delay_s * 1000), b"kept"))
    assert (node.topic().depth, len(node.channel().deferred)) == (1, 1)
    node.topic().unpause()
    node.turn()
    if kill:
        node.checkpoint()
        node.kill()
        older, younger = _consumer(node), _consumer(node, b"younger")
    assert (len(node.channel().deferred), len(node.channel("younger").deferred)) == (2, 1)
    assert len(node.topic().deferrals.dropped) == 1
    node.advance(s=delay_s)
    for client, bodies in ((older, [b"kept", b"own"]), (younger, [b"kept"])):
        came = client.messages()
        assert sorted(one.body for one in came) == bodies
        client.send(b"".join(b"FIN " + one.id + b"\n" for one in came))
    node.advance(s=200)
    node.checkpoint()
    assert node.topic().deferrals.dropped == []


def test_far_ones_are_dropped_while_their_bucket_is_read() -> None:
    node = Node()
    client = _consumer(node)
    node.topic().pause()
    line = command(b"DPUB t 600000", b"dropped")
    assert len(node.client().ask(line * 2500)) == 2500
    while node.topic().deferrals._loading is None:
        node.advance(ns=node.broker.next_due_ns - node.now_ns)
    assert node.topic().depth == 2500
    node.topic().empty()
    assert node.topic().depth == 0
    node.topic().unpause()
    node.advance(s=600)
    assert client.take() == []
    assert (node.channel().depth, len(node.channel().deferred)) == (0, 0)
