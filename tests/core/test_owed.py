"""What channels owe survives an orderly end exactly, and a kill without loss (ARCHITECTURE 3, P1 to P3)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pynsqd.core import owed
from pynsqd.core.batch import Batch
from pynsqd.core.ids import IdGenerator
from pynsqd.core.log import DeferredRecord
from pynsqd.core.owed import describe, move_stragglers
from pynsqd.storage.log_store import LogStore
from tests.support.memory_logs import MemoryDeferred, MemoryLog, MemoryLogs
from tests.support.session_wire import OK, Client, Node, S, command, mpub
from tests.support.wire import Message

ENDS = pytest.mark.parametrize("end", ["stop", "kill"])


def _end(node: Node, end: str) -> None:
    """Stop the node and start it again; before a kill there is a checkpoint, as there is every 100 ms."""
    if end == "kill":
        node.checkpoint()
        node.kill()
    else:
        node.stop()


def _consumer(node: Node, rdy: int = 100, channel: bytes = b"c") -> Client:
    client = node.consumer(rdy, channel=channel)
    client.answers = True
    return client


def _until(node: Node, ns: int) -> None:
    node.advance(ns=ns - node.now_ns)


def _seen(messages: list[Message]) -> list[tuple[bytes, int]]:
    return [(message.body, message.attempts) for message in messages]


@ENDS
@pytest.mark.parametrize("size", [10000, 3])
def test_everything_at_once(end: str, size: int) -> None:
    node = Node(mem_queue_size=size, msg_timeout_ns=600 * S)
    client = _consumer(node, 6)
    node.publish(*[b"%d" % number for number in range(4)])
    node.publish(*[b"%d" % number for number in range(4, 10)])
    first = client.messages()
    began_ns = node.now_ns
    client.send(b"RDY 0\nFIN " + first[1].id + b"\nREQ " + first[2].id + b" 20000\nREQ " + first[3].id + b" 0\n")
    client.send(b"REQ " + first[4].id + b" 500000\n")
    node.client().ask(command(b"DPUB t 10000", b"near") + command(b"DPUB t 400000", b"far"))
    node.turn()
    before = node.channel()
    assert (before.depth, before.in_flight_count, len(before.deferred)) == (5, 2, 4)
    ids = {message.body: (message.id, message.timestamp_ns) for message in first}
    _end(node, end)
    channel = node.channel()
    assert (channel.depth, channel.in_flight_count, len(channel.deferred)) == (7, 0, 4)
    again = _consumer(node)
    came = again.messages()
    assert sorted(_seen(came)) == [(b"0", 2), (b"3", 2), (b"5", 2), *[(b"%d" % number, 1) for number in range(6, 10)]]
    assert {message.body: (message.id, message.timestamp_ns) for message in came if message.body in ids} == {
        body: ids[body] for body in (b"0", b"3", b"5")
    }
    for due_s, body, attempts in ((10, b"near", 1), (20, b"2", 2), (400, b"far", 1), (500, b"4", 2)):
        _until(node, began_ns + due_s * S - 1)
        assert again.take() == []
        node.advance(ns=1)
        assert _seen(again.messages()) == [(body, attempts)]
    assert (node.channel().depth, len(node.channel().deferred), node.topic().depth) == (0, 0, 0)


@ENDS
def test_what_was_finished_does_not_come_again(end: str) -> None:
    node = Node()
    client = _consumer(node)
    node.publish(*[b"%d" % number for number in range(50)])
    messages = client.messages()
    client.send(b"".join(b"FIN " + message.id + b"\n" for message in messages[::2]))
    node.turn()
    _end(node, end)
    assert sorted(_seen(_consumer(node).messages())) == sorted((message.body, 2) for message in messages[1::2])


def test_after_a_kill_only_what_came_after_the_checkpoint_is_told_again() -> None:
    node = Node()
    client = _consumer(node)
    node.publish(b"a", b"b")
    a, b = client.messages()
    client.send(b"FIN " + a.id + b"\n")
    node.turn()
    node.checkpoint()
    client.send(b"FIN " + b.id + b"\n")
    node.publish(b"c")
    node.kill()
    assert sorted(_seen(_consumer(node).messages())) == [(b"b", 2), (b"c", 1)]


def test_what_came_back_after_the_checkpoint_is_there_once_with_its_attempts() -> None:
    node = Node()
    client = _consumer(node)
    node.publish(b"a", b"b", b"c", b"d")
    a, b, c, _ = client.messages()
    node.checkpoint()
    began_ns = node.now_ns
    client.send(b"RDY 0\nREQ " + a.id + b" 0\nREQ " + b.id + b" 5000\nREQ " + c.id + b" 400000\n")
    node.turn()
    node.kill()
    again = _consumer(node)
    assert sorted(_seen(again.messages())) == [(b"a", 2), (b"d", 2)]
    _until(node, began_ns + 5 * S - 1)
    assert again.take() == []
    node.advance(ns=1)
    assert _seen(again.messages()) == [(b"b", 2)]
    node.advance(s=40)
    again.send(b"RDY 0\n")
    node.advance(s=355)
    assert len(node.channel().deferred) == 0
    assert node.channel().depth + node.channel().in_flight_count == 4


def test_what_came_back_before_it_was_in_any_checkpoint() -> None:
    node = Node()
    node.checkpoint()
    client = _consumer(node)
    node.publish(b"a", b"b", b"c")
    a, b, _ = client.messages()
    client.send(b"RDY 0\nREQ " + a.id + b" 0\nREQ " + b.id + b" 5000\n")
    node.turn()
    client.send(b"RDY 2\n")
    node.turn()
    (a2,) = client.messages()
    client.send(b"RDY 0\nREQ " + a2.id + b" 0\n")
    node.turn()
    node.kill()
    again = _consumer(node)
    assert sorted(_seen(again.messages())) == [(b"a", 3), (b"c", 1)]
    node.advance(s=5)
    assert _seen(again.messages()) == [(b"b", 2)]


def test_without_a_checkpoint_everything_comes_again() -> None:
    node = Node()
    client = _consumer(node)
    node.publish(b"a", b"b")
    client.send(b"".join(b"FIN " + message.id + b"\n" for message in client.messages()))
    node.turn()
    node.states = {}
    node.kill()
    assert sorted(body for body, _ in _seen(_consumer(node).messages())) == [b"a", b"b"]


@ENDS
@pytest.mark.parametrize("paused", [False, True])
def test_what_waits_on_the_topic(end: str, paused: bool) -> None:
    node = Node()
    if paused:
        _consumer(node, 0)
        node.publish(b"channel's")
        node.topic().pause()
    node.publish(b"a", b"b")
    node.client().ask(command(b"DPUB t 5000", b"near") + command(b"DPUB t 400000", b"far"))
    assert node.topic().depth == 4
    _end(node, end)
    assert node.topic().depth == 4
    client = _consumer(node)
    if paused:
        assert client.bodies() == [b"channel's"]
        node.topic().unpause()
        node.turn()
    assert client.bodies() == [b"a", b"b"]
    node.advance(s=5)
    assert client.bodies() == [b"near"]
    client.session.consumer.rdy = 0  # type: ignore[union-attr]
    node.advance(s=395)
    assert node.topic().depth == 0
    assert node.channel().depth + node.channel().in_flight_count == 4 + paused


@pytest.mark.parametrize("made", [False, True])
def test_what_became_due_on_the_topic_and_was_given_to_channels_after_the_checkpoint(made: bool) -> None:
    """Deferred, due while it waited for a channel or the end of a pause, handed over, and then the node is killed."""
    node = Node()
    if made:
        _consumer(node, 0)
        node.topic().pause()
    node.client().ask(command(b"DPUB t 1000", b"x"))
    node.advance(s=2)
    node.checkpoint()
    if made:
        node.topic().unpause()
    else:
        node.topic().channel("c")
    node.turn()
    assert node.channel().depth == 1
    node.kill()
    assert _seen(_consumer(node).messages()) == [(b"x", 1)]


def test_a_pause_that_no_checkpoint_knows_of() -> None:
    """Killed between saving the metadata and the checkpoint: what was published is the channels', and only once."""
    node = Node()
    client = _consumer(node)
    node.client().ask(command(b"DPUB t 1000", b"deferred"))
    node.advance(s=2)
    client.send(b"".join(b"FIN " + message.id + b"\n" for message in client.messages()))
    node.turn()
    node.checkpoint()
    node.publish(b"x")
    client.send(b"".join(b"REQ " + message.id + b" 0\n" for message in client.messages()))
    node.turn()
    node.topic().pause()
    node.kill()
    assert (node.topic().paused, node.topic().depth, node.channel().depth) == (True, 0, 1)
    client = _consumer(node)
    node.topic().unpause()
    node.turn()
    assert [message.body for message in client.messages()] == [b"x"]


def test_a_pause_is_in_the_checkpoint_before_it_is_answered() -> None:
    node = Node()
    _consumer(node)
    node.publish(b"x")
    before = node.checkpoints
    node.topic().pause()
    node.turn()
    assert node.checkpoints == before + 1
    node.publish(b"waits")
    node.kill()
    assert (node.topic().depth, node.channel().depth) == (1, 1)


def test_without_a_checkpoint_a_paused_topic_gives_nothing_away() -> None:
    node = Node()
    _consumer(node, 0)
    node.publish(b"x")
    node.topic().pause()
    node.client().ask(command(b"DPUB t 5000", b"deferred"))
    node.states = {}
    node.kill()
    client = _consumer(node)
    node.advance(s=6)
    assert (client.take(), node.topic().depth) == ([], 2)
    node.topic().unpause()
    node.turn()
    assert sorted(client.bodies()) == [b"deferred", b"x"]


@ENDS
def test_flags_and_several_channels(end: str) -> None:
    node = Node()
    one, two = _consumer(node, 2, b"one"), _consumer(node, 0, b"two")
    node.channel("two").pause()
    node.publish(b"a", b"b", b"c")
    a, _ = one.messages()
    one.send(b"FIN " + a.id + b"\nRDY 0\n")
    node.turn()
    two.take()
    _end(node, end)
    assert (node.channel("one").paused, node.channel("two").paused) == (False, True)
    assert (node.channel("one").depth, node.channel("two").depth) == (2, 3)
    assert sorted(_seen(_consumer(node, channel=b"one").messages())) == [(b"b", 2), (b"c", 1)]
    node.channel("two").unpause()
    assert _seen(_consumer(node, channel=b"two").messages()) == [(b"a", 1), (b"b", 1), (b"c", 1)]


@pytest.mark.parametrize("what", ["channel", "topic"])
def test_what_was_emptied_stays_so_after_a_kill(what: str) -> None:
    node = Node()
    client = _consumer(node, 1)
    if what == "topic":
        node.topic().pause()
    node.publish(b"a", b"b")
    node.client().ask(command(b"DPUB t 5000", b"near") + command(b"DPUB t 400000", b"far"))
    client.take()
    if what == "topic":
        node.topic().empty()
    else:
        node.channel().empty()
    node.turn()  # the answer to /channel/empty leaves after this
    node.kill()
    if what == "topic":
        node.topic().unpause()
    again = _consumer(node)
    node.publish(b"new")
    node.advance(s=450)
    assert {body for body, _ in _seen(again.messages())} == {b"new"}


@pytest.mark.parametrize("others", [True, False])
def test_a_deleted_channel_made_again_is_empty_after_a_kill(others: bool) -> None:
    node = Node()
    if others:
        _consumer(node, 0, b"other")
    _consumer(node, 0)
    node.publish(b"a")
    node.client().ask(command(b"DPUB t 400000", b"far"))
    node.checkpoint()
    node.topic().delete_channel("c")
    node.turn()  # the answer to /channel/delete leaves after this
    again = _consumer(node)
    node.kill()
    again = _consumer(node)
    node.advance(s=450)
    assert again.take() == []


def test_a_deleted_topic_made_again_is_empty_after_a_kill() -> None:
    node = Node()
    _consumer(node, 0)
    node.publish(b"a")
    node.broker.delete_topic("t")
    node.turn()
    node.publish(b"new")
    node.kill()
    assert _seen(_consumer(node).messages()) == [(b"new", 1)]


@pytest.mark.parametrize("between", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("old", ["flowing", "paused", "no channel"])
@pytest.mark.parametrize("new", ["flowing", "no channel"])
def test_a_deleted_topic_made_again_while_no_checkpoint_can_be_written(new: str, old: str, between: bool) -> None:
    """The last one still has the deleted topic, whose cursors must not stand behind messages of the new one."""
    node = Node(msg_timeout_ns=600 * S)
    node.broker.topic("t")
    if old != "no channel":
        client = _consumer(node, 2)
    node.publish(b"old 1", b"old 2", b"old 3")  # the cursor stands within it
    if old == "flowing":
        client.send(b"FIN " + client.messages()[0].id + b"\nRDY 0\n")
    elif old == "paused":
        node.topic().pause()
    node.publish(b"old 4", b"old 5")
    node.client().ask(command(b"DPUB t 400000", b"old far"))
    node.turn()
    node.checkpoint()
    node.checkpoints_fail = True
    node.broker.delete_topic("t")
    node.turn()
    if between:
        node.kill()
    if new == "flowing":
        node.broker.topic("t").channel("c")
    node.publish(b"a", b"b")
    node.publish(b"c")
    node.client().ask(command(b"DPUB t 400000", b"far"))
    began_ns = node.now_ns
    node.turn()
    node.kill()
    if new == "flowing":
        assert (node.channel().depth, len(node.channel().deferred)) == (3, 1)
    else:
        assert (node.topic().depth, node.topic().backend_depth) == (4, 0)
    again = _consumer(node)
    assert (node.channel().depth, len(node.channel().deferred), node.topic().depth) == (0, 1, 0)
    assert _seen(again.messages()) == [(b"a", 1), (b"b", 1), (b"c", 1)]
    _until(node, began_ns + 400 * S)
    assert _seen(again.messages()) == [(b"far", 1)]


@ENDS
def test_a_restart_in_the_midst_of_a_thousand_short_publishes(end: str, tmp_path: Path) -> None:
    """They were read from the log as one batch; to find the place again takes no depth of calls."""
    node = Node(LogStore(tmp_path, 1 << 20, lambda *_: None), mem_queue_size=1, msg_timeout_ns=600 * S)
    client = _consumer(node, 0)
    for _ in range(1060):
        node.client().send(command(b"PUB t", b"x"))
        node.turn()
    client.send(b"RDY 1050\n")
    node.turn()
    came = client.messages()
    client.send(b"RDY 0\n" + b"".join(b"FIN " + message.id + b"\n" for message in came))
    node.turn()
    assert len(came) == 1050
    _end(node, end)
    assert node.channel().depth == 10
    assert len(_consumer(node).messages()) == 10


def test_messages_to_skip_are_of_one_record_only() -> None:
    """It was finished and let go of, but no checkpoint could be written since."""
    node = Node(msg_timeout_ns=600 * S)
    client = _consumer(node, 2)
    node.publish(b"a", b"b", b"c")
    a, b = client.messages()
    node.checkpoint()
    node.checkpoints_fail = True
    client.send(b"FIN " + a.id + b"\nFIN " + b.id + b"\nRDY 1\n")
    node.turn()
    (c,) = client.messages()
    client.send(b"RDY 0\nFIN " + c.id + b"\n")
    node.publish(b"d", b"e", b"f")
    node.checkpoint()
    node.kill()
    assert _seen(_consumer(node).messages()) == [(b"d", 1), (b"e", 1), (b"f", 1)]


def test_memory_durability_survives_an_orderly_end_only() -> None:
    node = Node(durability="memory", msg_timeout_ns=600 * S)
    client = _consumer(node, 2)
    node.publish(b"a", b"b", b"c")
    node.client().ask(command(b"DPUB t 5000", b"near"))
    a, _ = client.messages()
    client.send(b"FIN " + a.id + b"\nRDY 0\n")
    node.turn()
    node.stop()
    again = _consumer(node)
    assert sorted(_seen(again.messages())) == [(b"b", 2), (b"c", 1)]
    node.advance(s=5)
    assert _seen(again.messages()) == [(b"near", 1)]


@pytest.mark.parametrize("how", ["requeued", "deferred", "straggler"])
def test_what_was_published_before_the_topic_went_to_memory_is_kept(how: str) -> None:
    """Its OK was one of --durability=log."""
    node = Node(msg_timeout_ns=600 * S)
    client = _consumer(node, 1)
    node.publish(b"kept")
    (message,) = client.messages()
    node.topic().set_durability("memory")
    if how != "straggler":
        client.send(b"RDY 0\nREQ " + message.id + (b" 0\n" if how == "requeued" else b" 5000\n"))
    node.turn()
    if how == "straggler":
        move_stragglers(node.topic(), node.topic().log.end, 1 << 20)  # type: ignore[union-attr]
    node.publish(b"in memory only")
    node.checkpoint()
    node.kill()
    client = _consumer(node)
    if how == "deferred":
        node.advance(s=4)
        assert client.take() == []
        node.advance(s=1)
    assert _seen(client.messages()) == [(b"kept", 2)]


def test_a_clock_set_back_before_the_restart_makes_nothing_early_or_never() -> None:
    node = Node()
    _consumer(node, 0)
    node.client().ask(command(b"DPUB t 20000", b"x"))
    node.checkpoint()
    node.wall_offset_ns -= 3600 * S
    node.kill()
    again = _consumer(node)
    node.advance(ns=20 * S - 1)
    assert again.take() == []
    node.advance(ns=1)
    assert again.bodies() == [b"x"]


def test_ids_do_not_repeat_when_the_clock_was_set_back_before_the_restart() -> None:
    """Two messages of one id would be one in flight, and the other lost."""
    node = Node()
    _consumer(node, 0)
    node.publish(b"a", b"b")
    node.advance(s=10)
    node.checkpoint()
    node.wall_offset_ns -= 10 * S + 2_000_000  # so that the same moment comes once more
    node.kill()
    node.publish(b"c", b"d")
    messages = _consumer(node).messages()
    assert sorted(message.body for message in messages) == [b"a", b"b", b"c", b"d"]
    assert len({message.id for message in messages}) == 4
    assert node.channel().in_flight_count == 4


# -- what the log keeps ----------------------------------------------------------------------------------------------


def test_the_log_lets_go_of_what_every_channel_is_past() -> None:
    logs = MemoryLogs()
    node = Node(logs)
    one, two = _consumer(node, 100, b"one"), _consumer(node, 100, b"two")
    for number in range(10):
        node.publish(b"%d" % number)
    log = logs.logs["t"]
    ours, theirs = one.messages(), two.messages()
    one.send(b"".join(b"FIN " + message.id + b"\n" for message in ours))
    two.send(b"".join(b"FIN " + message.id + b"\n" for message in theirs[:4] + theirs[5:]))
    node.turn()
    node.checkpoint()
    assert len(log.records) == 6
    two.send(b"FIN " + theirs[4].id + b"\n")
    node.turn()
    node.checkpoint()
    assert log.records == []


def test_stragglers_move_to_the_end_of_the_log() -> None:
    logs = MemoryLogs()
    node = Node(logs, msg_timeout_ns=600 * S)
    stuck = _consumer(node, 1)
    node.publish(b"stuck")
    (message,) = stuck.messages()
    client = _consumer(node)
    node.publish(b"requeued")
    (other,) = client.messages()
    client.send(b"RDY 0\nREQ " + other.id + b" 0\n")
    node.turn()
    quick = _consumer(node, 0)
    for _ in range(20):
        node.publish(b"x" * 100)
    log = logs.logs["t"]
    end = log.end
    assert log.start == 0
    move_stragglers(node.topic(), end, 1 << 20)
    standing = describe(node.topic(), node.broker.log_ns(node.now_ns), node.wall_ns, 0)
    assert standing.needed_from < end  # the twenty have not been handed out
    client.send(b"RDY 30\n")
    node.turn()
    client.send(b"".join(b"FIN " + one.id + b"\n" for one in client.messages()))
    node.turn()
    move_stragglers(node.topic(), log.end, 1 << 20)
    node.checkpoint()
    assert log.start >= end
    quick.drop()
    node.kill()
    again = _consumer(node)
    assert _seen(again.messages()) == [(b"stuck", 2)]
    assert again.ask(b"FIN " + message.id + b"\n") == []


def test_stragglers_keep_their_attempts_if_the_node_is_killed_before_the_checkpoint() -> None:
    """In flight for the first and for the second time, requeued, and touched; what was finished does not come again."""
    node = Node(msg_timeout_ns=600 * S)
    client = _consumer(node, 6)
    node.publish(b"first", b"touched")
    node.publish(b"second", b"requeued", b"finished", b"later")
    node.checkpoint()
    _, touched, *others = client.messages()
    node.advance(s=1)
    client.send(b"TOUCH " + touched.id + b"\n")
    client.send(b"RDY 0\n" + b"".join(b"REQ " + message.id + b" 0\n" for message in others))
    node.turn()
    client.send(b"RDY 3\n")  # one more than is in flight
    node.turn()
    (second,) = client.messages()
    assert second.body == b"second"
    client.send(b"RDY 4\n")
    node.turn()
    (again,) = client.messages()
    client.send(b"REQ " + again.id + b" 0\nRDY 5\n")
    node.turn()
    finished, later = client.messages()
    client.send(b"RDY 0\nFIN " + finished.id + b"\nREQ " + later.id + b" 0\n")
    node.turn()
    before = node.channel().depth, node.channel().in_flight_count
    node.checkpoint()
    move_stragglers(node.topic(), node.topic().log.end, 1 << 20)  # type: ignore[union-attr]
    assert (node.channel().depth, node.channel().in_flight_count) == before == (2, 3)
    node.kill()
    came = _seen(_consumer(node).messages())
    assert sorted(came) == [(b"first", 2), (b"later", 3), (b"requeued", 3), (b"second", 3), (b"touched", 2)]


def test_a_straggler_is_moved_without_what_was_handed_out_of_its_batch() -> None:
    node = Node(msg_timeout_ns=600 * S)
    client = _consumer(node, 3)
    node.publish(b"a", b"b", b"c")
    client.send(b"RDY 0\n" + b"".join(b"REQ " + message.id + b" 0\n" for message in client.messages()))
    node.turn()
    client.send(b"RDY 2\n")
    node.turn()
    a, b = client.messages()
    client.send(b"RDY 0\nFIN " + a.id + b"\n")
    node.turn()
    node.checkpoint()
    move_stragglers(node.topic(), node.topic().log.end, 1 << 20)  # type: ignore[union-attr]
    node.kill()
    assert sorted(_seen(_consumer(node).messages())) == [(b"b", 3), (b"c", 2)]
    assert b.attempts == 2


@pytest.mark.parametrize("sized", [1, 1 << 20])
def test_what_came_back_is_found_ahead_where_ids_do_not_grow(monkeypatch: pytest.MonkeyPatch, sized: int) -> None:
    """As after import-nsqd: it is owed by name, and not once more in its turn."""
    monkeypatch.setattr(owed, "_CHUNK", sized)
    node = Node()
    client = _consumer(node)
    node.checkpoint()
    numbers = iter((5, 9, 3))
    monkeypatch.setattr(IdGenerator, "take", lambda _ids, _count, _wall_ns: [b"%016d" % next(numbers)])
    for body in (b"5", b"9", b"3"):
        node.publish(body)
    last = client.messages()[-1]
    client.send(b"RDY 0\nREQ " + last.id + b" 0\n")
    node.turn()
    node.states["t"]["ids_grow_from"] = node.topic().log.end  # type: ignore[union-attr]
    node.kill()
    assert node.channel().depth == 3
    assert sorted(_seen(_consumer(node).messages())) == [(b"3", 2), (b"5", 1), (b"9", 1)]
    assert describe(node.topic(), 7, 8, 9).state["ids_grow_from"] == node.states["t"]["ids_grow_from"]


def test_what_is_not_ahead_is_not_looked_for_in_a_whole_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "_CHUNK", 1)
    reads: list[int] = []

    class Counting(MemoryLog):
        def read(self, position: int, stop: int, max_bytes: int) -> tuple[list[Batch], int, int]:
            reads.append(position)
            return super().read(position, stop, max_bytes)

    logs = MemoryLogs()
    logs.logs["t"] = Counting()
    node = Node(logs, mem_queue_size=1)
    client = _consumer(node, 1)
    client.answers = True
    node.client().ask(command(b"DPUB t 55000", b"deferred"))
    for number in range(50):
        node.publish(b"%d" % number)
        node.advance(s=1)
    client.send(b"FIN " + client.messages()[0].id + b"\nRDY 0\n")
    node.turn()
    node.checkpoint()
    client.send(b"RDY 1\n")
    node.advance(s=8)
    message = client.messages()[0]
    while message.body != b"deferred":
        client.send(b"FIN " + message.id + b"\n")
        node.turn()
        (message,) = client.messages()
    client.send(b"RDY 0\nREQ " + message.id + b" 0\n")
    node.turn()
    del reads[:]
    node.kill()
    assert len(reads) < 20
    messages = _consumer(node).messages()
    assert sorted(int(one.body) for one in messages if one.body != b"deferred")[-1] == 49
    assert [one.attempts for one in messages if one.body == b"deferred"] == [2]


def test_a_checkpoint_is_small_and_plain() -> None:
    node = Node()
    client = _consumer(node, 2500)
    assert node.client().ask(mpub(b"t", [b"x"] * 2500)) == [OK]
    client.send(b"".join(b"FIN " + message.id + b"\n" for message in client.messages()[1:]))
    node.turn()
    state = describe(node.topic(), 7, 8, 9).state
    (owed,) = state["channels"]["c"]["owed"]
    assert (owed[0], len(owed[1]), owed[2], state["released"], state["stop"]) == (0, 16, 2, 7, None)


# -- far deferrals ---------------------------------------------------------------------------------------------------


class _Counting(MemoryDeferred):
    """Tells how many messages were read."""

    read = 0

    def load(self, bucket: int, from_serial: int = 0, due_after_ns: int = -1) -> Iterator[DeferredRecord]:
        for record in super().load(bucket, from_serial, due_after_ns):
            self.read += len(record.ids)
            yield record


def _dpub_far(node: Node, count: int, topic: bytes = b"t", delay_s: int = 600) -> None:
    lines = command(b"DPUB %b %d" % (topic, delay_s * 1000), b"far") * count
    assert node.client().ask(lines) == [OK] * count


@ENDS
def test_far_ones_are_counted_and_not_read_at_start(end: str) -> None:
    logs = MemoryLogs()
    store = logs.deferred["t"] = _Counting()
    node = Node(logs, msg_timeout_ns=600 * S)
    client = _consumer(node, 1)
    _consumer(node, 0, b"other")
    node.publish(b"x", b"y")
    (x,) = client.messages()
    _dpub_far(node, 50)
    client.send(b"REQ " + x.id + b" 700000\n")
    node.turn()
    node.checkpoint()
    _dpub_far(node, 3)
    (y,) = client.messages()
    client.send(b"REQ " + y.id + b" 800000\n")
    node.turn()
    store.read = 0
    if end == "stop":
        node.stop()
    else:
        node.kill()
    assert store.read <= (0 if end == "stop" else 8)  # what came after the checkpoint, twice
    assert [len(node.channel(name).deferred) for name in ("c", "other")] == [55, 53]
    client = _consumer(node, 1000)
    node.advance(s=590)
    assert client.take() == []
    node.advance(s=10)
    assert client.bodies() == [b"far"] * 53
    assert len(node.channel().deferred) == 2
    node.advance(s=200)
    assert _seen(client.messages()) == [(b"x", 2), (b"y", 2)]
    assert (len(node.channel().deferred), node.channel().depth) == (0, 0)


def test_what_is_finished_of_a_near_bucket_is_passed_over_at_start() -> None:
    logs = MemoryLogs()
    store = logs.deferred["t"] = _Counting()
    node = Node(logs)
    client = _consumer(node)
    _dpub_far(node, 20, delay_s=1)
    node.advance(s=2)
    client.send(b"".join(b"FIN " + message.id + b"\n" for message in client.messages()))
    _dpub_far(node, 2, delay_s=5)
    node.turn()
    node.checkpoint()
    assert store.buckets()
    store.read = 0
    node.kill()
    assert (store.read, len(node.channel().deferred), node.channel().depth) == (2, 2, 0)


@pytest.mark.parametrize("then", ["waits", "flows"])
def test_far_ones_that_waited_on_the_topic_are_counted(then: str) -> None:
    """Also where the topic flows again after the checkpoint, and the node is killed before the next one."""
    node = Node()
    _consumer(node, 0)
    node.topic().pause()
    _dpub_far(node, 20)
    node.checkpoint()
    _dpub_far(node, 2)
    if then == "flows":
        node.topic().unpause()
        _dpub_far(node, 4)
    node.kill()
    waits, owned = (22, 0) if then == "waits" else (0, 26)
    assert (node.topic().depth, len(node.channel().deferred)) == (waits, owned)
    node.topic().unpause()
    node.turn()
    client = _consumer(node, 100)
    node.advance(s=600)
    assert len(client.messages()) == waits + owned
    assert (node.topic().depth, len(node.channel().deferred)) == (0, 0)


def test_far_ones_in_memory_only_are_counted_after_an_orderly_end() -> None:
    node = Node(durability="memory")
    _dpub_far(node, 2, b"waits")
    _consumer(node, 0)
    _dpub_far(node, 3)
    node.stop()
    assert (node.topic("waits").depth, len(node.channel().deferred)) == (2, 3)
    node.stop()
    assert (node.topic("waits").depth, len(node.channel().deferred)) == (2, 3)


def test_a_checkpoint_that_does_not_count_far_ones() -> None:
    """As import-nsqd and earlier releases write it."""
    node = Node()
    _consumer(node, 0)
    _dpub_far(node, 5)
    node.checkpoint()
    del node.states["t"]["waiting_far"], node.states["t"]["channels"]["c"]["far"]
    node.kill()
    assert len(node.channel().deferred) == 5


def test_a_bucket_that_came_near_while_the_node_was_down() -> None:
    node = Node()
    _consumer(node, 0)
    _dpub_far(node, 5)
    node.checkpoint()
    node.clock.advance(s=590)
    node.kill()
    assert (len(node.channel().deferred), node.channel().deferred.far) == (5, {})
    client = _consumer(node)
    node.advance(s=9)
    assert client.take() == []
    node.advance(s=1)
    assert len(client.messages()) == 5


# -- ids -------------------------------------------------------------------------------------------------------------


def test_ids_do_not_come_again_after_a_clock_that_was_set_back() -> None:
    """Nor when it is set right, and the node was killed in between."""
    node = Node()
    consumer = node.consumer(100)
    seen: list[bytes] = []
    for step_s in (0, -3600, 3600):
        node.wall_offset_ns += step_s * S
        node.publish(*[b"x"] * 20)
        seen += [message.id for message in consumer.messages()]
        consumer.send(b"".join(b"FIN %b\n" % one for one in seen[-20:]))
        node.turn()
        node.checkpoint()
        node.kill()
        consumer = node.consumer(100)
    assert len(set(seen)) == 60
