"""A session whose IDENTIFY agrees on TLS or compression, and the gate of --tls-required (PROTOCOL 1.2, 1.6)."""

import json
from typing import Any

import pytest

from pynsqd.core.security import Security
from pynsqd.options import TlsRequired
from pynsqd.wire.errors import FatalClientError
from tests.support.session_wire import HEARTBEAT, OK, Client, Node, command, error, identify_command

SECURITY = Security("TLS1.3", "Unknown 4865", "somebody")


def _asking(node: Node, pipelined: bytes = b"", **keys: Any) -> tuple[Client, dict[str, Any]]:
    client = node.client()
    (frame,) = client.ask(identify_command(feature_negotiation=True, **keys) + pipelined)
    return client, json.loads(frame.payload)


@pytest.mark.parametrize("feature", ["tls_v1", "deflate", "snappy"])
def test_what_comes_behind_identify_is_not_read_as_commands(feature: str) -> None:
    node = Node(tls_cert="c")
    client, answer = _asking(node, command(b"PUB t", b"x"), **{feature: True})
    assert answer[feature] is True
    assert client.paused
    assert client.pipelined == command(b"PUB t", b"x")
    assert "t" not in node.broker.topics
    client.session.upgraded(node.now_ns)
    assert client.ask(command(b"PUB t", b"x")) == [OK]


def test_without_a_feature_nothing_is_awaited() -> None:
    node = Node(tls_cert="c", deflate=False)
    client, answer = _asking(node, b"NOP\n", deflate=True)
    assert (answer["deflate"], client.paused, client.pipelined) == (False, False, None)
    assert client.ask(command(b"PUB t", b"x")) == [OK]


def test_the_upgrade_waits_for_the_answers_before_it() -> None:
    """An fsync that an earlier publish waits for holds back the answer, and so what is written after it."""
    node = Node()
    client = node.client()
    client.send(command(b"PUB t", b"x"))
    client.session.hold(0)
    assert client.ask(identify_command(feature_negotiation=True, deflate=True)) == []
    assert client.pipelined is None
    client.session.let_go([])
    node.turn()
    assert len(client.take()) == 2
    assert client.pipelined == b""


def test_an_upgrade_that_is_due_is_due_once() -> None:
    client, _ = _asking(Node(), deflate=True)
    assert client.session.take_upgrade() is None


def test_nothing_is_written_while_layers_are_put_in_place() -> None:
    """A heartbeat would stand in the middle of a handshake, and no deadline of a session ends what has its own."""
    node = Node(tls_cert="c")
    client, _ = _asking(node, tls_v1=True, heartbeat_interval=1000)
    node.advance(s=4)
    assert (client.take(), client.closed) == ([], False)
    client.session.upgraded(node.now_ns)
    node.advance(s=1, ns=-1)
    assert client.take() == []
    node.advance(ns=1)
    assert client.take() == [HEARTBEAT]
    node.advance(s=1)
    assert client.closed


def test_a_session_that_ends_is_not_upgraded() -> None:
    node = Node()
    client = node.client()
    client.send(identify_command(feature_negotiation=True, deflate=True))
    node.broker.close_sessions()
    node.turn()
    assert (client.pipelined, client.closed) == (None, True)


def test_identify_is_over_with_an_upgrade() -> None:
    node = Node()
    client, _ = _asking(node, deflate=True)
    client.session.upgraded(node.now_ns)
    assert client.ask(identify_command()) == [error("E_INVALID cannot IDENTIFY in current state")]
    assert client.closed


@pytest.mark.parametrize("required", [TlsRequired.YES, TlsRequired.TCP_HTTPS])
@pytest.mark.parametrize("line", [b"NOP", b"PUB t", b"SUB t c", b"FIN 0123456789abcdef", b"AUTH", b"FOO", b"", b"fin"])
def test_without_the_tls_that_is_required_only_identify_is_legal(required: TlsRequired, line: bytes) -> None:
    client = Node(tls_cert="c", tls_required=required).client()
    name = line.split(b" ")[0].decode()
    assert client.ask(line + b"\n") == [error(f"E_INVALID cannot {name} in current state (TLS required)")]
    assert client.closed


def test_identify_alone_does_not_open_the_gate_and_compression_does_not_either() -> None:
    node = Node(tls_cert="c", tls_required=TlsRequired.YES)
    client = node.client()
    assert client.ask(identify_command()) == [OK]
    assert client.ask(b"SUB t c\n") == [error("E_INVALID cannot SUB in current state (TLS required)")]
    client, _ = _asking(node, deflate=True)
    client.session.upgraded(node.now_ns)
    assert client.ask(b"SUB t c\n") == [error("E_INVALID cannot SUB in current state (TLS required)")]


def test_tls_opens_the_gate_and_is_shown() -> None:
    node = Node(tls_cert="c", tls_required=TlsRequired.YES)
    client, _ = _asking(node, tls_v1=True, snappy=True)
    client.session.security = SECURITY
    client.session.upgraded(node.now_ns)
    assert client.ask(b"SUB t c\n") == [OK]
    (topic,) = node.broker.stats("", "", True).topics or ()
    (shown,) = topic.channels[0].clients or ()
    assert (shown.state, shown.tls, shown.deflate, shown.snappy) == (3, True, False, True)
    assert (shown.tls_version, shown.tls_cipher_suite) == ("TLS1.3", "Unknown 4865")
    assert (shown.tls_negotiated_protocol, shown.tls_negotiated_protocol_is_mutual) == ("", True)


def test_a_failed_upgrade_is_an_error_in_the_clear() -> None:
    node = Node(tls_cert="c")
    client, _ = _asking(node, tls_v1=True)
    client.session.fail(FatalClientError("E_IDENTIFY_FAILED", "IDENTIFY failed EOF"))
    node.turn()
    assert client.take() == [error("E_IDENTIFY_FAILED IDENTIFY failed EOF")]
    assert client.closed
