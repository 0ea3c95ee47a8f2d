"""Deferred messages: due times, what is far and only on disk, and who gets them (PROTOCOL 1.13, DEVIATIONS)."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core.deferred import Deferred
from pynsqd.core.log import DeferredRecord
from pynsqd.wire.encoder import message_frames, message_id
from pynsqd.wire.errors import StorageError
from tests.support.memory_logs import MemoryDeferred
from tests.support.session_wire import MS, OK, Client, FailingLogs, Node, S, command, error

# One bucket is 69 s; what is due more than two of them ahead is far.
NEAR_S, FAR_S = 30, 600


def _frame(number: int) -> bytes:
    return message_frames([b"%016x" % number], [b"x"], 1)


@given(st.lists(st.integers(1, 50), max_size=40), st.lists(st.integers(0, 60), max_size=8))
def test_what_is_due_comes_in_order_and_nothing_else(dues: list[int], moments: list[int]) -> None:
    deferred = Deferred(0, 0)
    waiting = [(due_ns, _frame(serial)) for serial, due_ns in enumerate(dues)]
    for serial, (due_ns, frame) in enumerate(waiting):
        deferred.add(due_ns, frame, serial if serial % 2 else -1)
    assert sorted(deferred.in_memory()) == sorted(waiting[::2])
    for now_ns in sorted(moments):
        assert len(deferred) == len(waiting)
        assert deferred.next_due_ns == min((due_ns for due_ns, _ in waiting), default=0)
        # Equal times keep the order in which they came: sorting by time alone is stable.
        due = sorted((one for one in waiting if one[0] <= now_ns), key=lambda one: one[0])
        taken = deferred.take_due(now_ns)
        assert [batch.frames for batch in taken] == [frame for _, frame in due]
        assert [batch.ids for batch in taken] == [[message_id(frame)] for _, frame in due]
        assert not any(batch.fresh for batch in taken)
        waiting = [one for one in waiting if one[0] > now_ns]


def test_clear() -> None:
    deferred = Deferred(3, 4)
    deferred.add(5, _frame(1), 9)
    deferred.far[2] = 7
    assert len(deferred) == 8
    deferred.clear(11, 12)
    assert (len(deferred), deferred.next_due_ns, deferred.take_due(10)) == (0, 0, [])
    assert (deferred.from_serial, deferred.own_from) == (11, 12)


# -- near and far ----------------------------------------------------------------------------------------------------


def _consumer(node: Node, channel: bytes = b"c", rdy: int = 100) -> Client:
    client = node.consumer(rdy, channel=channel)
    client.answers = True
    return client


def _dpub(node: Node, delay_s: float, body: bytes = b"x") -> None:
    assert node.client().ask(command(b"DPUB t %d" % (delay_s * 1000), body)) == [OK]


def _expect_at(node: Node, delay_s: float, client: Client, *bodies: bytes) -> None:
    node.advance(ns=round(delay_s * S) - 1)
    assert client.take() == []
    node.advance(ns=1)
    assert client.bodies() == list(bodies)


@pytest.mark.parametrize("delay_s", [NEAR_S, 68, 69, 70, 137, 138, 139, 206, 207, FAR_S, 3600])
def test_on_time_to_the_nanosecond(delay_s: float) -> None:
    node = Node()
    client = _consumer(node)
    node.advance(s=13)
    _dpub(node, delay_s)
    assert (len(node.channel().deferred), node.channel().depth, node.channel().message_count) == (1, 0, 1)
    _expect_at(node, delay_s, client, b"x")
    assert len(node.channel().deferred) == 0


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
def test_the_first_channel_gets_what_waits_on_the_topic(delay_s: float) -> None:
    node = Node()
    _dpub(node, delay_s)
    assert node.topic().depth == 1
    node.advance(s=10)
    client = _consumer(node)
    assert (node.topic().depth, len(node.channel().deferred), node.channel().message_count) == (0, 1, 1)
    _expect_at(node, delay_s - 10, client, b"x")
    assert len(node.channel().deferred) == 0


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
def test_every_channel_gets_what_waited_on_a_paused_topic(delay_s: float) -> None:
    node = Node()
    before = _consumer(node, b"before")
    node.topic().pause()
    _dpub(node, delay_s)
    during = _consumer(node, b"during")
    node.topic().unpause()
    after = _consumer(node, b"after")
    node.advance(s=delay_s)
    assert (before.bodies(), during.bodies(), after.bodies()) == ([b"x"], [b"x"], [])


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
def test_a_paused_topic_keeps_what_becomes_due(delay_s: float) -> None:
    node = Node()
    client = _consumer(node)
    node.topic().pause()
    _dpub(node, delay_s)
    node.advance(s=delay_s + 10)
    assert client.take() == []
    assert (node.topic().depth, len(node.channel().deferred)) == (1, 0)
    node.topic().unpause()
    node.turn()
    assert client.bodies() == [b"x"]
    assert (node.topic().depth, len(node.channel().deferred)) == (0, 0)


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
@pytest.mark.parametrize("what", ["topic", "channel"])
def test_what_was_emptied_does_not_come_back(delay_s: float, what: str) -> None:
    node = Node()
    client = _consumer(node)
    other = _consumer(node, b"other")
    if what == "topic":
        node.topic().pause()
    _dpub(node, delay_s, b"gone")
    if what == "topic":
        node.topic().empty()
        node.topic().unpause()
    else:
        node.channel().empty()
    assert (len(node.channel().deferred), node.topic().depth) == (0, 0)
    _dpub(node, delay_s, b"stays")
    node.advance(s=delay_s)
    assert client.bodies() == [b"stays"]
    assert other.bodies() == ([b"stays"] if what == "topic" else [b"gone", b"stays"])


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
def test_a_channel_made_again_has_none_of_the_old_ones(delay_s: float) -> None:
    node = Node()
    _consumer(node, b"other")
    first = _consumer(node)
    node.publish(b"requeued")
    (message,) = first.messages()
    first.send(b"REQ " + message.id + b" %d\n" % (delay_s * 1000))
    node.turn()
    _dpub(node, delay_s)
    node.topic().delete_channel("c")
    again = _consumer(node)
    node.advance(s=delay_s)
    assert again.take() == []
    assert len(node.channel().deferred) == 0


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
@pytest.mark.parametrize("how", ["emptied", "made again"])
@pytest.mark.parametrize("kill", [False, True])
def test_what_a_channel_gave_back_while_its_topic_was_paused_goes_with_it(delay_s: float, how: str, kill: bool) -> None:
    node = Node()
    client = _consumer(node)
    node.publish(b"x")
    (message,) = client.messages()
    node.topic().pause()
    client.send(b"REQ " + message.id + b" %d\n" % (delay_s * 1000))
    node.turn()
    if how == "emptied":
        node.channel().empty()
    else:
        node.topic().delete_channel("c")
        client = _consumer(node)
    if kill:
        node.turn()  # the answer to /channel/empty or /channel/delete leaves after this
        node.kill()
        client = _consumer(node)
    node.topic().unpause()
    assert len(node.channel().deferred) == 0
    node.advance(s=delay_s)
    assert client.take() == []


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
def test_a_requeue_with_a_delay_is_for_its_channel_only(delay_s: float) -> None:
    node = Node()
    one, two = _consumer(node, b"one"), _consumer(node, b"two")
    node.publish(b"x")
    (message,) = one.messages()
    two.send(b"FIN " + two.messages()[0].id + b"\n")
    one.send(b"REQ " + message.id + b" %d\n" % (delay_s * 1000))
    node.advance(ns=round(delay_s * S) - 1)
    assert one.take() == []
    node.advance(ns=1)
    (again,) = one.messages()
    assert (again.id, again.attempts, two.take()) == (message.id, 2, [])


def test_more_than_is_read_at_once_comes_on_time() -> None:
    node = Node()
    client = _consumer(node, rdy=2500)
    client.session.consumer.rdy = 10_000  # type: ignore[union-attr]
    publisher = node.client()
    assert (
        publisher.ask(b"".join(command(b"DPUB t %d" % (FAR_S * 1000 + at % 7), b"%d" % at) for at in range(3500)))
        == [OK] * 3500
    )
    assert len(node.channel().deferred) == 3500
    node.advance(ns=FAR_S * S - 1)
    assert client.take() == []
    assert len(node.channel().deferred) == 3500
    node.advance(ms=7)
    assert sorted(int(body) for body in client.bodies()) == list(range(3500))
    assert len(node.channel().deferred) == 0


def test_deferred_into_a_bucket_that_is_being_read() -> None:
    logs = FailingLogs()
    store = logs.open_deferred("t")
    store.load = lambda bucket, _: iter(store.filed[bucket])  # type: ignore[method-assign]  # sees what is added meanwhile
    node = Node(logs)
    client = _consumer(node, rdy=2500)
    client.session.consumer.rdy = 10_000  # type: ignore[union-attr]
    due_ns = node.now_ns + FAR_S * S
    for number in range(4):
        node.client().ask(b"".join(command(b"DPUB t %d" % (FAR_S * 1000), b"%d" % number) for _ in range(600)))
    while len(node.topic().deferrals._far) == 1:  # from due time to due time, to the first part of the bucket
        node.advance(ns=node.broker.next_due_ns - node.now_ns)
    parts = 0
    while node.topic().deferrals._loading is not None:
        left_ms = -(-(due_ns - node.now_ns) // MS)
        assert node.client().ask(command(b"DPUB t %d" % left_ms, b"new")) == [OK]
        parts += 1
        assert len(node.channel().deferred) == 2400 + parts
        node.advance(ns=node.broker.next_due_ns - node.now_ns)
    assert parts >= 2
    assert len(node.channel().deferred) == 2400 + parts
    node.advance(ns=due_ns + MS - node.now_ns)
    bodies = client.bodies()
    assert [bodies.count(b"%d" % number) for number in range(4)] == [600] * 4
    assert (bodies.count(b"new"), len(node.channel().deferred)) == (parts, 0)


def test_a_bucket_that_cannot_be_read_is_tried_again() -> None:
    """Also in the middle: nothing is left out and nothing comes twice."""
    reads: list[int] = []

    class Failing(MemoryDeferred):
        left = 0

        def load(self, bucket: int, from_serial: int = 0, due_after_ns: int = -1) -> Iterator[DeferredRecord]:
            reads.append(from_serial)
            for record in super().load(bucket, from_serial, due_after_ns):
                if not self.left:
                    raise StorageError("open 1.def: too many open files")
                self.left -= 1
                yield record

    logs = FailingLogs()
    store = logs.deferred["t"] = Failing()
    node = Node(logs)
    client = _consumer(node, rdy=2500)
    lines = b"".join(command(b"DPUB t %d" % (FAR_S * 1000), b"%d" % number) for number in range(1500))
    assert node.client().ask(lines) == [OK] * 1500
    node.advance(s=FAR_S - 40)
    assert node.broker.health == "NOK - open 1.def: too many open files"
    before = len(reads)
    store.left = 1200
    node.advance(s=10)
    assert len(node.channel().deferred) == 1500
    assert 1 < len(reads) - before < 12
    store.left = 300
    node.advance(s=29)
    assert client.take() == []
    node.advance(s=1)
    assert sorted(int(body) for body in client.bodies()) == list(range(1500))
    assert len(node.channel().deferred) == 0


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
def test_what_is_over_is_dropped_from_the_disk(delay_s: float) -> None:
    logs = FailingLogs()
    node = Node(logs, msg_timeout_ns=800 * S)
    client = _consumer(node)
    _dpub(node, delay_s)
    assert len(logs.deferred["t"].buckets()) == 1
    node.checkpoint()
    assert len(logs.deferred["t"].buckets()) == 1
    node.advance(s=delay_s + 150)
    node.checkpoint()
    assert len(logs.deferred["t"].buckets()) == 1  # it is in flight
    client.send(b"".join(b"FIN " + message.id + b"\n" for message in client.messages()))
    node.turn()
    node.checkpoint()
    assert logs.deferred["t"].buckets() == []


def test_a_store_that_refuses() -> None:
    logs = FailingLogs()
    node = Node(logs)
    client = _consumer(node)
    node.publish(b"x")
    (message,) = client.messages()
    logs.refuse_append("t", "no space left on device")
    line = b"REQ " + message.id + b" 5000\n"
    told = error(b"E_REQ_FAILED REQ %b failed no space left on device" % message.id)
    assert client.ask(line) == [told]
    assert (node.channel().in_flight_count, len(node.channel().deferred)) == (1, 0)
    assert node.channel().requeue_count == 0
    logs.refuse_append("t", "")
    assert client.ask(line) == []
    assert (node.channel().in_flight_count, len(node.channel().deferred)) == (0, 1)
    _expect_at(node, 5, client, b"x")


# -- without a disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", [b"t#ephemeral", b"t"])
def test_ephemeral_ones_are_on_time_and_not_on_disk(topic: bytes) -> None:
    logs = FailingLogs()
    node = Node(logs)
    client = node.consumer(5, topic=topic, channel=b"c#ephemeral")
    client.answers = True
    node.publish(b"x", topic=topic)
    (message,) = client.messages()
    client.send(b"REQ " + message.id + b" %d\n" % (FAR_S * 1000))
    node.turn()
    assert not any(store.filed for store in logs.deferred.values())
    node.advance(ns=FAR_S * S - 1)
    assert client.take() == []
    node.advance(ns=1)
    assert [again.attempts for again in client.messages()] == [2]


def test_with_memory_durability_nothing_is_on_disk() -> None:
    logs = FailingLogs()
    node = Node(logs, durability="memory")
    client = _consumer(node)
    _dpub(node, FAR_S)
    assert not logs.deferred["t"].filed
    _expect_at(node, FAR_S, client, b"x")
