"""Deferred messages: due times, what is far and only on disk, and who gets them (PROTOCOL 1.13, DEVIATIONS)."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core.batch import Batch
from pynsqd.core.deferred import Deferred
from pynsqd.core.log import DeferredRecord
from pynsqd.wire.encoder import message_frames
from pynsqd.wire.errors import StorageError
from tests.support.memory_logs import MemoryDeferred, MemoryLogs
from tests.support.session_wire import MS, OK, Client, FailingLogs, Node, S, command, error

# One bucket is 69 s; what is due more than two of them ahead is far.
NEAR_S, FAR_S = 30, 600


def _batch(number: int, position: int) -> Batch:
    """Return messages of one due time: one, two or three of them."""
    ids = [b"%015x%d" % (number, each) for each in range(1 + number % 3)]
    return Batch(ids, message_frames(ids, [b"x"] * len(ids), 1), position)


@given(st.lists(st.integers(1, 50), max_size=40), st.lists(st.integers(0, 60), max_size=8))
def test_what_is_due_comes_in_order_and_nothing_else(dues: list[int], moments: list[int]) -> None:
    deferred = Deferred(0, 0)
    waiting = [(due_ns, _batch(serial, serial if serial % 2 else -1)) for serial, due_ns in enumerate(dues)]
    for one in waiting:
        deferred.add(*one)
    assert {batch for _, batch in deferred.in_memory()} == {batch for _, batch in waiting[::2]}
    for now_ns in sorted(moments):
        assert len(deferred) == sum(batch.count for _, batch in waiting)
        assert deferred.next_due_ns == min((due_ns for due_ns, _ in waiting), default=0)
        # Equal times keep the order in which they came: sorting by time alone is stable.
        due = sorted((one for one in waiting if one[0] <= now_ns), key=lambda one: one[0])
        taken = deferred.take_due(now_ns)
        assert [(batch.ids, batch.frames, batch.position) for batch in taken] == [
            (batch.ids, batch.frames, batch.position) for _, batch in due
        ]
        assert not any(batch.fresh for batch in taken)
        assert not {*taken} & {batch for _, batch in due}  # those are other channels' too
        waiting = [one for one in waiting if one[0] > now_ns]


def test_clear() -> None:
    deferred = Deferred(3, 4)
    deferred.add(5, _batch(1, 9))
    deferred.far[2] = 7
    assert len(deferred) == 9
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
@pytest.mark.parametrize("how", ["emptied", "made again", "made again after a checkpoint"])
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
        if how == "made again after a checkpoint":
            node.turn()
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
    publisher = node.client()
    for number in range(1500):  # in a turn each, so each is a record
        assert publisher.ask(command(b"DPUB t %d" % (FAR_S * 1000), b"%d" % number)) == [OK]
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


# -- many in one turn ------------------------------------------------------------------------------------------------


def _records(logs: MemoryLogs, topic: str = "t") -> list[list[bytes]]:
    """Return the ids of each record that is on disk."""
    return [record.ids for records in logs.deferred[topic].filed.values() for record in records]


@pytest.mark.parametrize("delay_s", [NEAR_S, FAR_S])
def test_dpubs_of_one_delay_in_one_turn_are_one_record(delay_s: int) -> None:
    logs = MemoryLogs()
    node = Node(logs)
    consumers = [_consumer(node, channel) for channel in (b"c", b"d")]
    one, other = node.client(), node.client()
    for client, numbers in ((one, range(3)), (other, range(3, 5))):
        client.send(b"".join(command(b"DPUB t %d" % (delay_s * 1000), b"%d" % number) for number in numbers))
    other.send(command(b"DPUB t %d" % ((delay_s + 1) * 1000), b"later"))
    node.turn()
    assert (one.take(), other.take()) == ([OK] * 3, [OK] * 3)
    assert [len(ids) for ids in _records(logs)] == [5, 1]
    assert (node.topic().message_count, node.channel().message_count) == (6, 6)
    assert len(node.channel().deferred) == 6
    node.kill()
    assert len(node.channel("d").deferred) == 6
    consumers = [_consumer(node, channel) for channel in (b"c", b"d")]
    node.advance(s=delay_s)
    for consumer in consumers:
        assert consumer.bodies() == [b"%d" % number for number in range(5)]
    node.advance(s=1)
    for consumer in consumers:
        assert consumer.bodies() == [b"later"]


def test_an_ephemeral_topic_holds_as_many_deferred_ones_as_it_has_room_for() -> None:
    node = Node(mem_queue_size=4)
    lines = b"".join(command(b"DPUB t#ephemeral 1000", b"%d" % number) for number in range(6))
    assert node.client().ask(lines) == [OK] * 6
    assert node.topic("t#ephemeral").depth == 4


def test_reqs_of_one_delay_that_follow_each_other_are_one_record() -> None:
    """But for those that are not ours; each of these is answered, in its place."""
    logs = MemoryLogs()
    node = Node(logs)
    client = _consumer(node)
    node.publish(*(b"%d" % number for number in range(12)))
    ids = [message.id for message in client.messages()]
    strange = b"0123456789abcdef"
    given = [*ids[:5], strange, ids[5], ids[0], *ids[6:10]]
    answers = client.ask(b"".join(b"REQ %b 5000\n" % one for one in given) + b"REQ %b 6000\n" % ids[10])
    assert answers == [error(b"E_REQ_FAILED REQ %b failed ID not in flight" % one) for one in (strange, ids[0])]
    assert _records(logs) == [ids[:5], [ids[5]], ids[6:10], [ids[10]]]
    channel = node.channel()
    assert (channel.in_flight_count, len(channel.deferred), channel.requeue_count) == (1, 11, 11)
    node.advance(s=5)
    again = client.messages()
    assert [message.id for message in again] == ids[:10]
    assert {message.attempts for message in again} == {2}


@pytest.mark.parametrize("delay_ms", [0, 5000])
def test_a_message_given_back_twice_in_one_breath_comes_once(delay_ms: int) -> None:
    node = Node()
    client = _consumer(node)
    node.publish(b"x", b"y")
    x, y = client.messages()
    answers = client.ask(b"".join(b"REQ %b %d\n" % (one.id, delay_ms) for one in (x, x, y)))
    assert answers[0] == error(b"E_REQ_FAILED REQ %b failed ID not in flight" % x.id)
    assert node.channel().requeue_count == 2
    node.advance(ms=delay_ms)
    assert (node.channel().depth, node.channel().in_flight_count) == (0, 2)


def test_one_of_a_record_that_was_given_back_before_a_kill_comes_once() -> None:
    """The others of its record come from there."""
    node = Node()
    client = _consumer(node)
    assert node.client().ask(command(b"DPUB t 1000", b"x") * 3) == [OK] * 3
    node.checkpoint()
    node.advance(s=1)
    (first, *others) = client.messages()
    client.send(b"REQ %b 5000\n" % first.id)
    node.turn()
    node.kill()
    client = _consumer(node)
    node.advance(s=4)
    assert {message.id for message in client.messages()} == {message.id for message in others}
    node.advance(s=2)
    assert [message.id for message in client.messages()] == [first.id]


def test_a_store_that_refuses_many() -> None:
    """Each is answered and stays in flight, and the disk is asked once."""
    logs = FailingLogs()
    node = Node(logs)
    client = _consumer(node)
    node.publish(*[b"x"] * 50)
    ids = [message.id for message in client.messages()]
    logs.refuse_append("t", "no space left on device")
    strange = b"0" * 16
    answers = client.ask(b"".join(b"REQ %b 5000\n" % one for one in [*ids[:20], strange, *ids[20:]]))
    assert answers.pop(20) == error(b"E_REQ_FAILED REQ %b failed ID not in flight" % strange)
    assert answers == [error(b"E_REQ_FAILED REQ %b failed no space left on device" % one) for one in ids]
    assert (node.channel().in_flight_count, len(node.channel().deferred)) == (50, 0)


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
