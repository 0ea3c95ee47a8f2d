"""Magic, lines, unknown commands, the table of states, the end of a connection (PROTOCOL 1.1, 1.3)."""

import pytest

from pynsqd.wire.constants import MAX_LINE
from tests.support.session_wire import CLOSE_WAIT, HEARTBEAT, OK, Client, Node, command, error, mpub

ID = b"0123456789abcdef"


def _subscribed(node: Node) -> Client:
    return node.consumer(0)


def _closing(node: Node) -> Client:
    client = node.consumer(0)
    assert client.ask(b"CLS\n") == [CLOSE_WAIT]
    return client


# -- magic -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("magic", [b"  V1", b"  v2", b"V2  ", b"\0\0\0\0", b"GET / HTTP/1.1\r\n", b"  V1NOP\n"])
def test_a_wrong_magic_is_answered_and_closed(magic: bytes) -> None:
    client = Node().client(magic=b"")
    assert client.ask(magic) == [error("E_BAD_PROTOCOL")]
    assert client.closed


def test_the_magic_may_come_in_pieces_and_is_not_answered() -> None:
    client = Node().client(magic=b"")
    for piece in (b" ", b" ", b"V"):
        assert client.ask(piece) == []
    assert client.ask(b"2NOP\nPUB t\n\0\0\0\x01x") == [OK]
    assert not client.closed


@pytest.mark.parametrize("part", [b"", b" ", b"  V", b"xyz"])
def test_the_end_before_four_bytes_is_silent(part: bytes) -> None:
    client = Node().client(magic=part)
    assert client.eof() == []
    assert client.closed


# -- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"FOO\n", b"FOO"),
        (b"FOO bar\n", b"FOO"),
        (b"nop\n", b"nop"),
        (b" NOP\n", b""),
        (b"\n", b""),
        (b"\r\n", b""),
        (b"NOP\tX\n", b"NOP\tX"),
        (b"NOP\r\r\n", b"NOP\r"),
        (b"NOP\0\n", b"NOP\0"),
        (b"PUB\xff\xfe t\n", b"PUB\xff\xfe"),
        (b"  V2\n", b""),
        (b"FINX " + ID + b"\n", b"FINX"),
        (b"fin " + ID + b"\n", b"fin"),
    ],
)
def test_unknown_commands(line: bytes, word: bytes) -> None:
    client = Node().client()
    assert client.ask(line + b"NOP\nPUB t\n") == [error(b"E_INVALID invalid command " + word)]
    assert client.closed
    assert not client.node.broker.topics  # nothing behind a fatal error is carried out


def test_carriage_returns_and_parameters_too_many() -> None:
    client = Node().client()
    assert client.ask(b"NOP\r\nPUB t\r\n\0\0\0\x01xNOP a b  c\nPUB t x y\n\0\0\0\x01x") == [OK, OK]
    assert client.ask(b"SUB t c x\r\n") == [OK]
    assert client.ask(b"RDY 1 x\nFIN " + ID + b" x\nREQ " + ID + b" 0 x\nTOUCH " + ID + b" x\nCLS x\n") == [
        error(b"E_%b_FAILED %b %b failed ID not in flight" % (verb, verb, ID)) for verb in (b"FIN", b"REQ", b"TOUCH")
    ] + [CLOSE_WAIT]
    assert client.ask(command(b"DPUB t 5 x", b"x") + mpub(b"t x", [b"y"])) == [OK, OK]
    identify = Node().client()
    assert identify.ask(command(b"IDENTIFY x y", b"{}")) == [OK]


@pytest.mark.parametrize("split", [1, 5000, MAX_LINE * 2])
def test_a_line_of_16384_bytes_is_the_longest(split: int) -> None:
    longest = b"NOP " + b"x" * (MAX_LINE - 5) + b"\n"
    client = Node().client()
    for start in range(0, len(longest), split):
        client.send(longest[start : start + split])
    assert client.ask(command(b"PUB t", b"x")) == [OK]
    too_long = b"NOP " + b"x" * (MAX_LINE - 4) + b"\n"
    for start in range(0, len(too_long), split):
        client.send(too_long[start : start + split])
    assert client.ask(b"") == []
    assert client.closed


def test_what_came_before_a_line_too_long_is_carried_out_and_answered() -> None:
    client = Node().client()
    assert client.ask(command(b"PUB t", b"x") + b"x" * MAX_LINE) == [OK]
    assert client.closed
    assert client.node.topic().depth == 1


def test_the_end_inside_a_line_is_silent() -> None:
    client = Node().client()
    client.send(command(b"PUB t", b"x") + b"PUB t")
    assert client.eof() == [OK]
    assert client.closed


def test_nothing_is_taken_after_a_fatal_error() -> None:
    client = Node().client()
    client.send(b"FOO\n")
    client.send(command(b"PUB t", b"x"))
    client.session.eof()
    client.node.turn()
    assert client.take() == [error("E_INVALID invalid command FOO")]
    assert client.node.broker.topics == {}


# -- states ----------------------------------------------------------------------------------------------------------

STATES = {"init": Node.client, "subscribed": _subscribed, "closing": _closing}
REFUSED = {
    "init": (b"RDY", b"FIN", b"REQ", b"TOUCH", b"CLS"),
    "subscribed": (b"IDENTIFY", b"AUTH", b"SUB"),
    "closing": (b"IDENTIFY", b"AUTH", b"SUB", b"CLS"),
}


@pytest.mark.parametrize("tail", [b"", b" ", b" x", b" " + ID, b" " + ID + b" 0"])
@pytest.mark.parametrize("state", STATES)
def test_what_a_state_refuses_comes_before_every_other_check(state: str, tail: bytes) -> None:
    for name in REFUSED[state]:
        client = STATES[state](Node())
        assert client.ask(name + tail + b"\n") == [error(b"E_INVALID cannot %b in current state" % name)]
        assert client.closed


@pytest.mark.parametrize("state", STATES)
def test_publishing_and_nop_work_in_every_state(state: str) -> None:
    client = STATES[state](Node())
    asked = b"NOP\n" + command(b"PUB t", b"x") + mpub(b"t", [b"y"]) + command(b"DPUB t 0", b"z")
    assert client.ask(asked) == [OK, OK, OK]
    assert client.ask(b"NOP\n") == []
    assert not client.closed


def test_the_state_is_nsqds_number() -> None:
    node = Node()
    assert [make(node).session.state for make in STATES.values()] == [0, 3, 4]


def test_acknowledging_works_after_cls() -> None:
    node = Node()
    client = node.consumer(3)
    node.publish(b"a", b"b", b"c")
    one, two, three = (message.id for message in client.messages())
    assert client.ask(b"CLS\n") == [CLOSE_WAIT]
    assert client.ask(b"FIN " + one + b"\nREQ " + two + b" 60000\nTOUCH " + three + b"\n") == []
    channel = node.channel()
    assert (channel.in_flight_count, len(channel.deferred), channel.depth) == (1, 1, 0)


# -- AUTH ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"AUTH \n", b"AUTH x\n", b"AUTH x y\n"])
def test_auth_takes_no_parameter_not_even_an_empty_one(line: bytes) -> None:
    client = Node().client()
    assert client.ask(line) == [error("E_INVALID AUTH invalid number of parameters")]
    assert client.closed


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\0\0\0\0", "E_BAD_BODY AUTH invalid body size 0"),
        (b"\xff\xff\xff\xff", "E_BAD_BODY AUTH invalid body size -1"),
        (b"\0\0\0\x65", "E_BAD_BODY AUTH body too big 101 > 100"),
        (b"\0\0\0\x64" + b"x" * 100, "E_AUTH_DISABLED AUTH disabled"),
    ],
)
def test_auth_without_auth_servers(body: bytes, text: str) -> None:
    client = Node(max_body_size=100).client()
    assert client.ask(b"AUTH\n" + body) == [error(text)]
    assert client.closed


@pytest.mark.parametrize(
    ("part", "what"),
    [(b"", "body size"), (b"\0\0\0", "body size"), (b"\0\0\0\x05", "body"), (b"\0\0\0\x05abcd", "body")],
)
def test_auth_cut_short(part: bytes, what: str) -> None:
    client = Node().client()
    client.send(b"AUTH\n" + part)
    assert client.eof() == [error(f"E_BAD_BODY AUTH failed to read {what}")]
    assert client.closed


# -- order -----------------------------------------------------------------------------------------------------------


def test_a_thousand_commands_in_one_read_are_answered_in_order() -> None:
    client = Node().client()
    frames = client.ask((b"NOP\n" + command(b"PUB t", b"x")) * 1000 + b"BAD\n" + b"NOP\n" * 1000)
    assert frames == [OK] * 1000 + [error("E_INVALID invalid command BAD")]
    assert client.closed
    assert client.writes == 1


def test_heartbeats_are_not_commands() -> None:
    client = Node().client()
    client.node.advance(s=30)
    assert client.take() == [HEARTBEAT]
    assert client.ask(b"_heartbeat_\n") == [error("E_INVALID invalid command _heartbeat_")]
