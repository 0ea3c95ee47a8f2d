"""SUB, RDY, CLS: every row of PROTOCOL 1.4, and the window (1.10)."""

import pytest

from tests.support.session_wire import CLOSE_WAIT, OK, Node, error, identify_command

# -- SUB -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"SUB", "E_INVALID SUB insufficient number of parameters"),
        (b"SUB t", "E_INVALID SUB insufficient number of parameters"),
        (b"SUB /", "E_INVALID SUB insufficient number of parameters"),
        (b"SUB t ", 'E_BAD_CHANNEL SUB channel name "" is not valid'),
        (b"SUB  c", 'E_BAD_TOPIC SUB topic name "" is not valid'),
        (b"SUB / /", 'E_BAD_TOPIC SUB topic name "/" is not valid'),
        (b"SUB t \xe2\x98\x83\xff", 'E_BAD_CHANNEL SUB channel name "☃\\xff" is not valid'),
        (b"SUB t " + b"c" * 65, f'E_BAD_CHANNEL SUB channel name "{"c" * 65}" is not valid'),
        (b"SUB t#ephemera c", 'E_BAD_TOPIC SUB topic name "t#ephemera" is not valid'),
    ],
)
def test_params(line: bytes, text: str) -> None:
    client = Node().client()
    assert client.ask(line + b"\n") == [error(text)]
    assert client.closed
    assert client.node.broker.topics == {}


def test_heartbeats_off_is_looked_at_before_the_parameters() -> None:
    client = Node().client()
    assert client.ask(identify_command(heartbeat_interval=-1)) == [OK]
    assert client.ask(b"SUB\n") == [error("E_INVALID cannot SUB with heartbeats disabled")]
    assert client.closed


def test_the_consumer_limit_leaves_topic_and_channel_behind() -> None:
    node = Node(max_channel_consumers=2)
    for _ in range(2):
        assert node.client().ask(b"SUB t c\n") == [OK]
    refused = node.client()
    assert refused.ask(b"SUB t c\n") == [error("E_SUB_FAILED SUB failed consumers for t:c exceeds limit of 2")]
    assert refused.closed
    assert len(node.channel().consumers) == 2
    assert node.client().ask(b"SUB t other\n") == [OK]


def test_a_place_that_was_left_can_be_taken() -> None:
    node = Node(max_channel_consumers=1)
    first = node.client()
    first.ask(b"SUB t c\n")
    first.drop()
    assert node.client().ask(b"SUB t c\n") == [OK]


def test_one_subscription_a_connection() -> None:
    client = Node().client()
    assert client.ask(b"SUB t c\nSUB t d\n") == [OK, error("E_INVALID cannot SUB in current state")]


# -- RDY -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"RDY x", "E_INVALID RDY could not parse count x"),
        (b"RDY -1", "E_INVALID RDY could not parse count -1"),
        (b"RDY 1.0", "E_INVALID RDY could not parse count 1.0"),
        (b"RDY \xff", b"E_INVALID RDY could not parse count \xff"),
        (b"RDY 2501", "E_INVALID RDY count 2501 out of range 0-2500"),
        (b"RDY 18446744073709551615", "E_INVALID RDY count -1 out of range 0-2500"),
        (b"RDY 9223372036854775808", "E_INVALID RDY count -9223372036854775808 out of range 0-2500"),
    ],
)
def test_rdy_refused(line: bytes, text: str | bytes) -> None:
    client = Node().consumer(0)
    assert client.ask(line + b"\n") == [error(text)]
    assert client.closed


@pytest.mark.parametrize(
    ("line", "rdy"),
    [
        (b"RDY", 1),
        (b"RDY ", 0),
        (b"RDY 0", 0),
        (b"RDY 2500", 2500),
        (b"RDY 007", 7),
        (b"RDY 18446744073709551616", 0),
        (b"RDY 18446744073709551621 x", 5),
    ],
)
def test_rdy_taken(line: bytes, rdy: int) -> None:
    client = Node().consumer(3)
    assert client.ask(line + b"\n") == []
    assert client.session.consumer is not None
    assert client.session.consumer.rdy == rdy


def test_rdy_is_bounded_by_the_option() -> None:
    node = Node(max_rdy_count=5)
    assert node.consumer(5).ask(b"RDY 6\n") == [error("E_INVALID RDY count 6 out of range 0-5")]


@pytest.mark.parametrize("line", [b"RDY 5", b"RDY x", b"RDY 99999", b"RDY"])
def test_rdy_is_ignored_in_closing_even_when_bad(line: bytes) -> None:
    node = Node()
    client = node.consumer(1)
    client.ask(b"CLS\n")
    assert client.ask(line + b"\n") == []
    node.publish(b"x")
    assert client.take() == []
    assert not client.closed


def test_rdy_is_a_window() -> None:
    node = Node()
    client = node.consumer(2)
    node.publish(*[b"%d" % number for number in range(10)])
    first = client.messages()
    assert [message.body for message in first] == [b"0", b"1"]
    node.turn()
    assert client.take() == []
    client.send(b"FIN " + first[0].id + b"\n")
    node.turn()
    assert client.bodies() == [b"2"]
    assert client.ask(b"RDY 0\n") == []  # lowering it takes nothing back
    assert node.channel().in_flight_count == 2
    client.send(b"FIN " + first[1].id + b"\n")
    node.turn()
    assert client.take() == []
    client.send(b"RDY 4\n")
    node.turn()
    assert client.bodies() == [b"3", b"4", b"5"]


def test_rdy_may_be_pipelined_behind_sub() -> None:
    node = Node()
    node.publish(b"a", b"b")
    client = node.client()
    client.send(b"SUB t c\nRDY 1\n")
    node.turn()
    assert [frame.type for frame in client.take()] == [0, 2]


def test_the_first_rdy_is_zero() -> None:
    node = Node()
    node.publish(b"a")
    client = node.client()
    assert client.ask(b"SUB t c\n") == [OK]
    node.turn()
    assert client.take() == []


# -- CLS -------------------------------------------------------------------------------------------------------------


def test_cls_stops_deliveries_and_keeps_the_connection() -> None:
    node = Node()
    client = node.consumer(5, msg_timeout=5000)
    node.publish(b"a")
    (message,) = client.messages()
    client.send(b"CLS\n")
    node.publish(b"b")
    assert client.take() == [CLOSE_WAIT]
    assert not client.closed
    other = node.consumer(5)
    assert other.bodies() == [b"b"]
    node.advance(s=5)  # timeouts go on
    assert other.bodies() == [b"a"]
    assert client.ask(b"FIN " + message.id + b"\n") == [
        error(b"E_FIN_FAILED FIN %b failed client does not own message" % message.id)
    ]


def test_a_closing_client_still_counts_as_a_client() -> None:
    node = Node()
    client = node.consumer(1)
    client.ask(b"CLS\n")
    assert len(node.channel().consumers) == 1
    client.drop()
    assert len(node.channel().consumers) == 0
