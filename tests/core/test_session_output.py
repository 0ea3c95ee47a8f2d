"""What is written: one write a turn, replies before messages, nothing to one who does not read or is on his way out."""

import pytest

from pynsqd.core.consumer import MAX_UNWRITTEN
from pynsqd.wire.errors import StorageError
from tests.support.session_wire import HEARTBEAT, OK, Client, FailingLogs, Node, command, error, identify_command, mpub
from tests.support.wire import ERROR, RESPONSE

BIG = b"x" * 100_000


def test_replies_and_messages_of_a_turn_go_in_one_write() -> None:
    node = Node()
    client = node.consumer(100)
    writes = client.writes
    client.send(command(b"PUB t", b"a") * 50 + b"FIN 0123456789abcdef\n")
    node.turn()
    assert client.writes == writes + 1
    frames = client.take()
    assert [frame.type for frame in frames] == [0] * 50 + [1] + [2] * 50


def test_an_unread_connection_gets_no_messages_until_it_reads() -> None:
    node = Node()
    client = node.consumer(100)
    client.session.pause_writing(node.now_ns)
    node.publish(b"a")
    assert client.take() == []
    assert node.channel().depth == 1
    client.session.resume_writing()
    node.turn()
    assert client.bodies() == [b"a"]


def test_one_that_does_not_read_before_it_subscribes_is_blocked_too() -> None:
    node = Node()
    client = node.client()
    client.session.pause_writing(node.now_ns)
    node.publish(b"a")
    assert client.ask(b"SUB t c\nRDY 1\n") == [OK]
    node.turn()
    assert client.take() == []
    client.session.resume_writing()
    node.turn()
    assert client.bodies() == [b"a"]


def test_messages_for_one_who_does_not_read_go_to_the_others() -> None:
    node = Node()
    stuck, reading = node.consumer(100), node.consumer(100)
    stuck.session.pause_writing(node.now_ns)
    node.publish(*[b"x"] * 20)
    assert (stuck.bodies(), reading.bodies()) == ([], [b"x"] * 20)


def _writes_of(client: Client) -> list[int]:
    """The list to which the size of each further write is appended."""
    writes: list[int] = []
    flush = client.flush

    def measured() -> None:
        before = len(client._buffer)
        flush()
        writes.append(len(client._buffer) - before)

    client.flush = measured  # type: ignore[method-assign]
    return writes


def test_big_messages_are_handed_over_piece_by_piece() -> None:
    """Unwritten output is bounded by bytes, not by RDY: the rest follows once it is written."""
    node = Node()
    client = node.consumer(2500)
    writes = _writes_of(client)
    for _ in range(5):
        node.publish(*[BIG] * 10)
    assert client.bodies() == [BIG] * 50
    assert max(writes) < 2 * MAX_UNWRITTEN + len(BIG)
    assert len([size for size in writes if size]) >= 10


def test_big_messages_in_front_of_small_ones_are_too() -> None:
    """The size of a batch says nothing about the size of its first messages."""
    node = Node()
    client = node.consumer(2500)
    writes = _writes_of(client)
    node.client().ask(mpub(b"t", [BIG] * 30 + [b"s"] * 2000))
    assert client.bodies() == [BIG] * 30 + [b"s"] * 2000
    assert max(writes) < 2 * MAX_UNWRITTEN + len(BIG)


def test_a_session_on_its_way_out_takes_no_messages() -> None:
    """Its error is the last it hears; what waits is for the others, with its attempts untouched."""
    node = Node()
    failing = node.consumer(10)
    publisher = node.client()
    failing.send(b"FOO\n")
    publisher.send(command(b"PUB t", b"x"))
    node.turn()
    assert failing.take() == [error("E_INVALID invalid command FOO")]
    assert failing.closed
    (message,) = node.consumer(1).messages()
    assert message.attempts == 1


def test_a_peer_that_reads_its_last_error_slowly_takes_no_messages() -> None:
    """The connection may live on for seconds until what was written before the close is read."""
    node = Node()
    failing = node.consumer(10)
    failing.drop = lambda: None  # type: ignore[method-assign]
    failing.ask(b"FOO\n")
    node.publish(b"x")
    assert failing.take() == []
    assert node.consumer(1).bodies() == [b"x"]


def test_a_failed_publish_of_a_connection_that_is_gone_is_nobodys() -> None:
    logs = FailingLogs()
    logs.refuse_append("t", "full")
    node = Node(logs)
    client = node.client()
    client.send(command(b"PUB t", b"x"))
    client.drop()
    node.broker.end_turn(node.now_ns, node.wall_ns)
    assert client.session not in node.broker.take_output()


def test_closing_all_sessions_is_silent() -> None:
    node = Node()
    clients = [node.client(), node.consumer(1), node.client(magic=b"")]
    node.broker.close_sessions()
    node.turn()
    assert [client.take() for client in clients] == [[], [], []]
    assert all(client.closed for client in clients)
    assert node.broker.sessions == {}


def test_output_is_taken_once() -> None:
    node = Node()
    client = node.client()
    client.session.receive(command(b"PUB t", b"x"), node.now_ns)
    node.broker.end_turn(node.now_ns, node.wall_ns)
    assert client.session.take_output() != []
    assert client.session.take_output() == []


# -- replies that wait for an fsync ----------------------------------------------------------------------------------


def test_ok_waits_for_the_fsync_and_what_comes_behind_it_too() -> None:
    node = Node(durability="fsync")
    client = node.client()
    assert client.ask(command(b"PUB t", b"a") + b"SUB t c\nFIN 0123456789abcdef\n") == []
    node.fsync()
    assert [frame.type for frame in client.take()] == [0, 0, 1]


def test_others_do_not_wait() -> None:
    node = Node(durability="fsync")
    consumer = node.consumer(1)
    publisher, idle = node.client(), node.client()
    assert publisher.ask(command(b"PUB t", b"a")) == []
    assert consumer.bodies() == [b"a"]
    assert idle.ask(b"SUB t c\n") == [OK]


def test_a_failed_fsync_is_a_failed_publish() -> None:
    node = Node(durability="fsync")
    client = node.client()
    client.send(command(b"PUB t", b"a") + mpub(b"t", [b"b"]) + b"NOP\n")
    node.turn()
    assert not client.closed
    node.fsync("fdatasync t: input/output error")
    assert client.take() == [error("E_PUB_FAILED PUB failed fdatasync t: input/output error")]
    assert client.closed


def test_an_error_behind_a_publish_waits_and_then_closes() -> None:
    node = Node(durability="fsync")
    client = node.client()
    assert client.ask(command(b"PUB t", b"a") + b"FOO\n") == []
    assert not client.closed
    node.fsync()
    assert client.take() == [OK, error("E_INVALID invalid command FOO")]
    assert client.closed


def test_a_publisher_that_is_gone_before_the_fsync() -> None:
    node = Node(durability="fsync")
    client = node.client()
    client.ask(command(b"PUB t", b"a"))
    client.drop()
    node.fsync("input/output error")
    assert client.take() == []
    assert client.session not in node.broker.sessions


def test_replies_do_not_wait_for_the_fsync_of_what_came_later() -> None:
    """A publisher that never pauses has always something to sync; its first OK must not wait for its last."""
    node = Node(durability="fsync")
    client = node.client()
    client.send(command(b"PUB t", b"first"))
    node.turn()
    first, node.unsynced = node.unsynced, []
    client.send(command(b"PUB t", b"second"))
    node.turn()
    node.unsynced, second = first, node.unsynced
    node.fsync()
    assert client.take() == [OK]
    node.unsynced = second
    node.fsync()
    assert client.take() == [OK]


def test_what_comes_before_a_publish_does_not_wait_for_its_fsync() -> None:
    """Only the order of the replies is owed."""
    node = Node(durability="fsync")
    client = node.client()
    assert client.ask(identify_command() + command(b"PUB t", b"a") + b"SUB t c\n") == [OK]
    assert client.ask(b"FIN 0123456789abcdef\n") == []
    node.fsync()
    assert [frame.type for frame in client.take()] == [RESPONSE, RESPONSE, ERROR]


def test_replies_of_several_topics_leave_with_the_fsync_of_their_turn() -> None:
    """The replies of a turn are not in the order of its topics."""
    node = Node(durability="fsync")
    node.broker.open_topic("log", "log")
    client = node.client()
    turns = []
    for topics in ([b"a", b"b", b"a"], [b"b", b"log", b"a"], [b"a"]):
        client.send(b"".join(command(b"PUB " + topic, b"x") for topic in topics))
        node.turn()
        turns.append(node.unsynced)
        node.unsynced = []
    for count, groups in zip((3, 3, 1), turns, strict=True):
        assert client.take() == []
        node.unsynced = groups
        node.fsync()
        assert client.take() == [OK] * count


@pytest.mark.parametrize("later", [[], [command(b"PUB t", b"later")], [command(b"PUB t", b"later"), b"FOO\n"]])
def test_nothing_is_said_after_a_failed_fsync(later: list[bytes]) -> None:
    """Not even the OK of what another topic, or a later fsync, has kept."""
    node = Node(durability="fsync")
    client = node.client()
    client.ask(command(b"PUB good", b"1") + command(b"PUB bad", b"2") + command(b"PUB good", b"3"))
    ((group, _),), node.unsynced = node.unsynced, []
    for data in later:
        assert client.ask(data) == []
    client.send(command(b"PUB good", b"in a turn that has not ended"))
    group.settle({node.topic("bad"): StorageError("sync bad: input/output error")})
    node.turn()
    told = client.take()
    node.fsync("sync t: input/output error")
    assert told + client.take() == [OK, error("E_PUB_FAILED PUB failed sync bad: input/output error")]
    assert client.closed


def test_an_append_and_an_fsync_that_fail_in_one_turn() -> None:
    logs = FailingLogs()
    logs.refuse_append("full", "no space left")
    node = Node(logs, durability="fsync")
    client = node.client()
    client.send(command(b"PUB t", b"a") + command(b"PUB full", b"b") + command(b"PUB t", b"c"))
    node.turn()
    assert client.take() == []
    node.fsync()
    assert client.take() == [OK, error("E_PUB_FAILED PUB failed no space left")]
    assert client.closed


def test_heartbeats_do_not_wait_for_a_slow_disk() -> None:
    node = Node(durability="fsync")
    client = node.client()
    client.ask(command(b"PUB t", b"a"))
    node.clock.advance(s=30)
    client.send(command(b"PUB t", b"in the turn of the heartbeat"))
    node.turn()
    assert client.take() == [HEARTBEAT]
    node.fsync()
    assert client.take() == [OK, OK]
