"""Heartbeats, read and write deadlines (PROTOCOL 1.8), to the nanosecond, on a clock that the test moves."""

import pytest

from tests.support.session_wire import HEARTBEAT, MS, OK, Client, Node, S, command, error, identify_command
from tests.support.wire import Frame


def _identified(interval_ms: int) -> Client:
    client = Node().client()
    assert client.ask(identify_command(heartbeat_interval=interval_ms)) == [OK]
    return client


def _closes_in_60_s(client: Client) -> None:
    client.node.advance(ns=60 * S - 1)
    assert not client.closed
    client.node.advance(ns=1)
    assert client.closed


# -- heartbeats ------------------------------------------------------------------------------------------------------


def test_everybody_gets_a_heartbeat_every_30_seconds() -> None:
    node = Node()
    silent, publisher, consumer = node.client(), node.client(), node.consumer(1)
    for _ in range(5):
        node.advance(ns=30 * S - 1)
        assert (silent.take(), publisher.take(), consumer.take()) == ([], [], [])
        node.advance(ns=1)
        assert (silent.take(), publisher.take(), consumer.take()) == ([HEARTBEAT], [HEARTBEAT], [HEARTBEAT])
        silent.send(b"NOP\n")
        publisher.send(command(b"PUB t", b"x"))
        consumer.send(b"RDY 0\n")
        node.turn()
        publisher.take()
        consumer.take()
    assert not (silent.closed or publisher.closed or consumer.closed)


def test_there_is_no_heartbeat_before_the_magic() -> None:
    node = Node()
    client = node.client(magic=b"  V")
    node.advance(s=45)
    assert client.take() == []
    client.send(b"2")
    node.advance(ns=30 * S - 1)
    assert client.take() == []
    node.advance(ns=1)
    assert client.take() == [HEARTBEAT]


def test_a_connection_without_magic_does_not_stay_for_ever() -> None:
    node = Node()
    client = node.client(magic=b"")
    node.advance(ns=60 * S - 1)
    assert not client.closed
    node.advance(ns=1)
    assert client.closed
    assert client.take() == []


def test_the_ticker_restarts_at_identify() -> None:
    node = Node()
    client = node.client()
    node.advance(s=29)
    client.ask(identify_command())
    node.advance(ns=30 * S - 1)
    assert client.take() == []
    node.advance(ns=1)
    assert client.take() == [HEARTBEAT]


def test_heartbeats_missed_are_not_made_up_for() -> None:
    """A node that slept sends one, and goes on in step."""
    client = _identified(1000)
    node = client.node
    client.session.deadlines.read_due_ns += 100 * S
    node.clock.advance(ms=5500)
    node.turn()
    assert client.take() == [HEARTBEAT]
    node.advance(ms=499)
    assert client.take() == []
    node.advance(ms=1)
    assert client.take() == [HEARTBEAT]


def test_off_means_no_heartbeat_and_no_deadline_between_commands() -> None:
    client = _identified(-1)
    client.node.advance(s=3600)
    assert client.take() == []
    assert client.ask(command(b"PUB t", b"x")) == [OK]
    client.node.advance(s=3600)
    assert client.ask(command(b"PUB t", b"x")) == [OK]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([b"PUB t\n\0\0\0\x05", b"ab", b"c"], [error("E_BAD_MESSAGE PUB failed to read message body")]),
        ([b"PUB t", b"o"], []),
        ([b"MPUB t\n", b"\0"], [error("E_BAD_BODY MPUB failed to read body size")]),
        ([b"NOP\nNO", b"P"], []),
    ],
)
def test_off_leaves_a_deadline_for_the_rest_of_a_command(parts: list[bytes], told: list[Frame]) -> None:
    """However slowly its bytes come; and the next command has a deadline of its own."""
    client = _identified(-1)
    for part in parts:
        client.send(part)
        client.node.advance(s=15)
    assert client.take() == []
    client.node.advance(ns=60 * S - 15 * S * len(parts) - 1)
    assert not client.closed
    client.node.advance(ns=1)
    assert client.take() == told
    assert client.closed


def test_off_and_a_slow_client_that_finishes_its_commands() -> None:
    client = _identified(-1)
    for _ in range(5):
        for part in (b"PUB t\n\0\0", b"\0\x01", b"x"):
            client.node.advance(s=25)
            client.send(part)
        client.node.turn()
        assert client.take() == [OK]
    client.node.advance(s=3600)
    assert not client.closed


def test_off_and_reads_that_always_end_within_a_command() -> None:
    """Each command has a deadline of its own, so a busy client has none."""
    client = _identified(-1)
    client.send(b"N")
    for _ in range(5):
        client.node.advance(s=25)
        client.send(b"OP\nN")
    _closes_in_60_s(client)


def test_off_and_on_again() -> None:
    client = _identified(-1)
    client.node.advance(s=100)
    assert client.ask(identify_command(heartbeat_interval=2000)) == [OK]
    client.node.advance(ns=2 * S - 1)
    assert client.take() == []
    client.node.advance(ns=1)
    assert client.take() == [HEARTBEAT]
    client.node.advance(s=2)
    assert client.closed


def test_a_heartbeat_goes_with_the_replies_of_its_turn() -> None:
    client = _identified(1000)
    client.node.clock.advance(s=1)
    writes = client.writes
    assert client.ask(command(b"PUB t", b"x")) == [OK, HEARTBEAT]
    assert client.writes == writes + 1


# -- read deadline ---------------------------------------------------------------------------------------------------


def test_silence_for_two_intervals_closes_without_a_frame() -> None:
    client = _identified(1000)
    client.node.advance(ns=2 * S - 1)
    assert client.take() == [HEARTBEAT]
    assert not client.closed
    client.node.advance(ns=1)
    assert client.take() == []
    assert client.closed


def test_a_whole_command_renews_the_deadline() -> None:
    client = _identified(1000)
    for step in (b"NOP\n", command(b"PUB t", b"x"), b"NOP\nNOP\nNO", b"P\n"):
        client.node.advance(ns=2 * S - 1)
        assert not client.closed
        client.send(step)
    client.node.advance(ns=2 * S - 1)
    assert not client.closed
    client.node.advance(ns=1)
    assert client.closed


@pytest.mark.parametrize("part", [b"N", b"NOP", b"PUB t", b""])
def test_half_a_line_does_not(part: bytes) -> None:
    client = _identified(1000)
    client.node.advance(ms=1500)
    client.send(part[:1])
    client.node.advance(ms=250)
    client.send(part[1:])
    client.node.advance(ns=250 * MS - 1)
    assert not client.closed
    client.node.advance(ns=1)
    assert client.closed
    assert error(b"") not in client.take()


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (b"PUB t\n", "E_BAD_MESSAGE PUB failed to read message body size"),
        (b"PUB t\n\0\0\0\x05abc", "E_BAD_MESSAGE PUB failed to read message body"),
        (b"DPUB t 1\n\0\0\0\x05", "E_BAD_MESSAGE DPUB failed to read message body"),
        (b"MPUB t\n", "E_BAD_BODY MPUB failed to read body size"),
        (b"MPUB t\n\0\0\0\x20\0\0\0\x02\0", "E_BAD_MESSAGE MPUB failed to read message(0) body size"),
        (b"IDENTIFY\n\0\0\0\x05{", "E_BAD_BODY IDENTIFY failed to read body"),
        (b"AUTH\n\0\0\0\x05{", "E_BAD_BODY AUTH failed to read body"),
    ],
)
def test_expiry_in_a_body_is_answered(start: bytes, text: str) -> None:
    client = _identified(1000)
    client.send(b"NOP\n" + start)
    client.node.advance(ns=2 * S - 1)
    assert client.take() == [HEARTBEAT]
    client.node.advance(ns=1)
    assert client.take()[-1:] == [error(text)]
    assert client.closed


def test_the_deadline_is_set_before_the_line_and_not_renewed_in_its_body() -> None:
    """The line came at 1.5 s, its body never: due 2 s after the command before it."""
    client = _identified(1000)
    client.node.advance(ms=1500)
    client.send(b"PUB t\n")
    client.node.advance(ms=250)
    client.send(b"\0\0\0\x05a")
    client.node.advance(ms=249)
    client.send(b"b")
    assert not client.closed
    client.node.advance(ms=1)
    assert client.take()[-1:] == [error("E_BAD_MESSAGE PUB failed to read message body")]
    assert client.closed


def test_a_body_that_trickles_in_keeps_nothing_alive() -> None:
    client = _identified(1000)
    client.send(b"PUB t\n\0\0\0\x64")
    for _ in range(19):
        client.node.advance(ms=100)
        client.send(b"x")
    assert not client.closed
    client.node.advance(ms=100)
    assert client.closed


def test_a_consumer_that_falls_silent_gives_its_messages_back() -> None:
    node = Node()
    silent = node.consumer(1, heartbeat_interval=1000)
    node.publish(b"x")
    assert silent.bodies() == [b"x"]
    other = node.consumer(1)
    node.advance(s=2)
    assert silent.closed
    assert other.bodies() == [b"x"]


# -- write deadline --------------------------------------------------------------------------------------------------


def test_a_peer_that_does_not_read_is_closed_after_an_interval() -> None:
    node = Node()
    client = node.consumer(1, heartbeat_interval=1000)
    node.advance(ms=500)
    client.session.pause_writing(node.now_ns)
    for _ in range(9):
        node.advance(ms=100)
        client.send(b"NOP\n")
        assert not client.closed
    node.advance(ms=1100)
    assert client.closed


def test_one_that_reads_again_in_time_is_not() -> None:
    node = Node()
    client = node.consumer(1, heartbeat_interval=1000)
    for _ in range(6):
        client.session.pause_writing(node.now_ns)
        node.advance(ms=900)
        client.session.resume_writing()
        client.send(b"NOP\n")
    assert not client.closed


def test_no_heartbeat_is_piled_on_top_of_what_is_not_read() -> None:
    node = Node()
    client = node.client()
    node.advance(s=1)
    client.session.pause_writing(node.now_ns)
    node.advance(s=29)
    assert client.take() == []
    client.session.resume_writing()
    client.send(b"NOP\n")
    node.advance(s=30)
    assert client.take() == [HEARTBEAT]


def test_without_heartbeats_there_is_a_write_deadline_too() -> None:
    client = _identified(-1)
    for _ in range(3):
        client.session.pause_writing(client.node.now_ns)
        client.node.advance(s=59)
        client.session.resume_writing()
        client.node.advance(s=30)
    assert not client.closed
    client.session.pause_writing(client.node.now_ns)
    _closes_in_60_s(client)


def test_the_write_deadline_outlives_a_read_deadline_that_was_kept() -> None:
    client = _identified(-1)
    client.send(b"N")
    client.node.advance(s=30)
    client.send(b"OP\n")
    client.session.pause_writing(client.node.now_ns)
    _closes_in_60_s(client)


def test_a_closed_session_wakes_nobody() -> None:
    node = Node()
    client = node.client()
    client.drop()
    assert node.broker.next_due_ns == 0
    other = node.client()
    other.send(b"BAD\n")
    turns = node.turns
    node.advance(s=100)
    assert node.turns <= turns + 3
