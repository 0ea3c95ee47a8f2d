"""IDENTIFY on a connection: its body (PROTOCOL 1.4), and that what was agreed is in force."""

import json
from typing import Any

import pytest

from pynsqd.wire.constants import NSQ_VERSION
from tests.support.session_wire import HEARTBEAT, OK, Client, Node, S, command, error, identify_command


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\0\0\0\0", "invalid body size 0"),
        (b"\xff\xff\xff\xff", "invalid body size -1"),
        (b"\0\x50\0\x01", "body too big 5242881 > 5242880"),
        (b"\0\0\0\x02xx", "failed to decode JSON body"),
        (b"\0\0\0\x19" + b'{"heartbeat_interval":1} ', "heartbeat interval (1) is invalid"),
    ],
)
def test_a_bad_body(body: bytes, text: str) -> None:
    client = Node().client()
    assert client.ask(b"IDENTIFY\n" + body) == [error(f"E_BAD_BODY IDENTIFY {text}")]
    assert client.closed


@pytest.mark.parametrize(
    ("part", "what"), [(b"", "body size"), (b"\0\0", "body size"), (b"\0\0\0\x02", "body"), (b"\0\0\0\x02{", "body")]
)
def test_cut_short(part: bytes, what: str) -> None:
    client = Node().client()
    client.send(b"IDENTIFY\n" + part)
    assert client.eof() == [error(f"E_BAD_BODY IDENTIFY failed to read {what}")]
    assert client.closed


def _features(client: Client, **keys: Any) -> Any:
    (frame,) = client.ask(identify_command(feature_negotiation=True, **keys))
    assert frame.type == 0
    return json.loads(frame.payload)


def test_the_answer_is_ok_or_the_features() -> None:
    node = Node(max_rdy_count=5, max_msg_timeout_ns=90 * S, msg_timeout_ns=40 * S, max_deflate_level=3)
    assert node.client().ask(identify_command()) == [OK]
    assert _features(node.client(), tls_v1=True, deflate=True, snappy=False, sample_rate=3) == {
        "max_rdy_count": 5,
        "version": NSQ_VERSION,
        "max_msg_timeout": 90_000,
        "msg_timeout": 40_000,
        "tls_v1": False,
        "deflate": True,
        "deflate_level": 3,
        "max_deflate_level": 3,
        "snappy": False,
        "sample_rate": 3,
        "auth_required": False,
        "output_buffer_size": 16384,
        "output_buffer_timeout": 250,
    }


def test_the_nodes_bounds_are_the_options() -> None:
    node = Node(
        max_msg_timeout_ns=5 * S,
        max_heartbeat_interval_ns=2 * S,
        max_output_buffer_size=100,
        min_output_buffer_timeout_ns=2 * S,
        max_output_buffer_timeout_ns=3 * S,
    )
    for key, good, bad, words in (
        ("msg_timeout", 5000, 5001, "msg timeout"),
        ("heartbeat_interval", 2000, 2001, "heartbeat interval"),
        ("output_buffer_size", 100, 101, "output buffer size"),
        ("output_buffer_timeout", 2000, 1999, "output buffer timeout"),
        ("output_buffer_timeout", 3000, 3001, "output buffer timeout"),
    ):
        assert node.client().ask(identify_command(**{key: good})) == [OK]
        assert node.client().ask(identify_command(**{key: bad})) == [
            error(f"E_BAD_BODY IDENTIFY {words} ({bad}) is invalid")
        ]


def test_before_identify_the_names_are_the_peers_address() -> None:
    client = Node().client(host="192.0.2.7")
    assert (client.session.identity.client_id, client.session.identity.hostname) == ("192.0.2.7", "192.0.2.7")
    assert client.session.identity.user_agent == ""
    client.ask(identify_command(user_agent="u"))
    assert (client.session.identity.client_id, client.session.identity.hostname) == ("", "")


def test_the_message_timeout_is_in_force() -> None:
    node = Node()
    consumer = node.consumer(1, msg_timeout=1000)
    node.publish(b"x")
    assert [message.attempts for message in consumer.messages()] == [1]
    node.advance(ms=999)
    assert consumer.take() == []
    node.advance(ms=1)
    assert [message.attempts for message in consumer.messages()] == [2]


def test_the_heartbeat_interval_is_in_force() -> None:
    node = Node()
    client = node.client()
    node.advance(s=20)
    assert client.ask(identify_command(heartbeat_interval=5000)) == [OK]
    node.advance(ms=4999)
    assert client.take() == []
    node.advance(ms=1)
    assert client.take() == [HEARTBEAT]
    client.ask(b"NOP\n")
    node.advance(s=5)
    assert client.take() == [HEARTBEAT]


def test_a_longer_heartbeat_interval_is_in_force_too() -> None:
    node = Node()
    client = node.client()
    node.advance(s=20)
    assert client.ask(identify_command(heartbeat_interval=60000)) == [OK]
    node.advance(ms=59_999)
    assert client.take() == []
    node.advance(ms=1)
    assert client.take() == [HEARTBEAT]


def test_a_second_identify_applies_wholly() -> None:
    """DEVIATIONS: nsqd keeps the ticker, the sample rate and the delivery timeout of the first."""
    node = Node()
    client = node.client()
    client.ask(identify_command(heartbeat_interval=-1, sample_rate=1, msg_timeout=50_000, client_id="a"))
    features = _features(client, heartbeat_interval=3000, msg_timeout=2000)
    assert (features["sample_rate"], features["msg_timeout"]) == (0, 2000)
    assert client.session.identity.client_id == ""
    assert client.ask(b"SUB t c\nRDY 50\n") == [OK]
    node.publish(*[b"x"] * 50)
    assert len(client.messages()) == 50
    node.advance(s=2)
    assert [message.attempts for message in client.messages()] == [2] * 50
    node.advance(s=1)
    assert client.take() == [HEARTBEAT]


def test_sample_rate_keeps_its_percentage() -> None:
    """DEVIATIONS: s %, where nsqd keeps s + 1."""
    node = Node()
    sampled = node.consumer(2500, sample_rate=30)
    everything = node.consumer(2500, channel=b"all")
    for _ in range(10):
        node.publish(*[b"x"] * 200)
    kept = sampled.messages()
    assert len(everything.messages()) == 2000
    assert 450 < len(kept) < 750  # 600 expected, seven standard deviations either way
    channel = node.channel()
    assert (channel.message_count, channel.depth, channel.in_flight_count) == (2000, 0, len(kept))
    for message in kept:
        sampled.send(b"FIN " + message.id + b"\n")
    node.turn()
    assert sampled.take() == []
    assert channel.in_flight_count == 0


def test_a_sample_rate_of_1_keeps_1_and_not_2_percent() -> None:
    node = Node()
    sampled = node.consumer(2500, sample_rate=1)
    for _ in range(20):
        node.publish(*[b"x"] * 1000)
    # 200 expected, standard deviation 14; 2 % would be 400
    assert 120 < len(sampled.messages()) < 290


def test_a_message_is_not_held_back_by_the_output_buffer() -> None:
    """DEVIATIONS: sent in the turn in which it becomes ready, whatever the buffer settings."""
    for keys in ({}, {"output_buffer_timeout": -1}, {"output_buffer_timeout": 30_000, "output_buffer_size": 65536}):
        node = Node()
        consumer = node.consumer(10, **keys)
        node.publish(b"x")
        assert consumer.bodies() == [b"x"]


def test_identify_after_publishing_and_pipelined() -> None:
    client = Node().client()
    assert client.ask(command(b"PUB t", b"x") + identify_command() + b"SUB t c\nRDY 1\n")[:3] == [OK, OK, OK]
