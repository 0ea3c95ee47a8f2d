"""wire/lookup_v1: lines, sized bodies and what IDENTIFY says."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.wire.errors import FatalClientError
from pynsqd.wire.lookup_v1 import (
    MAX_LINE,
    BadSize,
    Inbox,
    MalformedInput,
    PeerInfo,
    command,
    parse_peer_info,
    sized,
)


def inbox(data: bytes) -> Inbox:
    box = Inbox()
    box.feed(data)
    return box


# ---- lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"PING\n", "PING"),
        (b"PING\r\n", "PING"),
        (b" \t PING x \x0b\x0c\n", "PING x"),
        (b"\xc2\xa0PING\xe2\x80\x83\n", "PING"),
        (b"REGISTER  t\n", "REGISTER  t"),
        (b"\n", ""),
        (b"\x1cPING\x1f\n", "\x1cPING\x1f"),  # white space to Python, not to Go
        (b"\xa0PING\n", "\udca0PING"),  # a byte that is no UTF-8 stays what it is
    ],
)
def test_line_is_trimmed_as_go_does(line: bytes, expected: str) -> None:
    assert inbox(line).line() == expected


def test_incomplete_line_is_waited_for() -> None:
    box = inbox(b"PI")
    assert box.line() is None
    box.feed(b"NG\nPONG")
    assert box.line() == "PING"
    assert box.line() is None
    box.feed(b"\n")
    assert box.line() == "PONG"
    assert len(box) == 0


def test_longest_line() -> None:
    assert inbox(b"x" * (MAX_LINE - 1) + b"\n").line() == "x" * (MAX_LINE - 1)
    with pytest.raises(MalformedInput):
        inbox(b"x" * MAX_LINE + b"\n").line()
    with pytest.raises(MalformedInput):
        inbox(b"x" * (MAX_LINE + 1)).line()


# ---- sized bodies


def test_sized_body_is_taken_when_complete() -> None:
    box = inbox(b"\0\0\0")
    assert box.sized(10) is None
    box.feed(b"\x03ab")
    assert box.sized(10) is None
    box.feed(b"cd")
    assert box.sized(10) == b"abc"
    assert box.take(1) == b"d"
    assert box.take(1) is None


@pytest.mark.parametrize("size", [-1, -(2**31), 11, 2**31 - 1])
def test_impossible_size_is_refused_before_its_body_comes(size: int) -> None:
    with pytest.raises(BadSize) as raised:
        inbox(struct.pack(">i", size)).sized(10)
    assert (raised.value.size, raised.value.limit) == (size, 10)


def test_sized_body_may_be_empty_or_at_the_limit() -> None:
    box = inbox(sized(b"") + sized(b"x" * 10))
    assert box.sized(10) == b""
    assert box.sized(10) == b"x" * 10


@given(st.lists(st.binary(max_size=20), max_size=8), st.data())
def test_answers_split_at_any_byte(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(sized, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    box, found = Inbox(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        box.feed(stream[start:end])
        while (body := box.sized(20)) is not None:
            found.append(body)
    assert found == bodies


# ---- commands


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("PING",), b"PING\n"),
        (("REGISTER", "t"), b"REGISTER t\n"),
        (("REGISTER", "t", ""), b"REGISTER t\n"),
        (("UNREGISTER", "t#ephemeral", "c"), b"UNREGISTER t#ephemeral c\n"),
    ],
)
def test_command(words: tuple[str, ...], line: bytes) -> None:
    assert command(*words) == line


# ---- IDENTIFY

FULL = {"version": "1.3.0", "tcp_port": 4150, "http_port": 4151, "hostname": "h", "broadcast_address": "ba"}


def test_peer_info_is_read_and_shown() -> None:
    info = parse_peer_info(json.dumps(FULL | {"remote_address": "spoof", "more": [1]}).encode(), "1.2.3.4:5")
    assert info == PeerInfo("1.2.3.4:5", "h", "ba", 4150, 4151, "1.3.0")
    assert list(info.shown().items()) == [
        ("remote_address", "1.2.3.4:5"),
        ("hostname", "h"),
        ("broadcast_address", "ba"),
        ("tcp_port", 4150),
        ("http_port", 4151),
        ("version", "1.3.0"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"{}",
        b' {"tcp_port":null} \n',
    ],
)
def test_absent_values_are_empty(body: bytes) -> None:
    assert parse_peer_info(body, "p") == PeerInfo("p", "", "", 0, 0, "")


def test_names_match_in_any_case() -> None:
    assert parse_peer_info(b'{"TCP_Port":1,"Version":"v"}', "p") == PeerInfo("p", "", "", 1, 0, "v")


def test_lone_surrogates_do_not_get_further() -> None:
    assert parse_peer_info(rb'{"hostname":"a\ud800b","version":"\ud83d\ude00"}', "p").hostname == "a\ufffdb"
    assert parse_peer_info(rb'{"version":"\ud83d\ude00"}', "p").version == "\U0001f600"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"xx",
        b"[]",
        b'"text"',
        b"1",
        b"{} x",
        b"\xef\xbb\xbf{}",
        b'{"tcp_port":1.0}',
        b'{"tcp_port":1e3}',
        b'{"tcp_port":"1"}',
        b'{"tcp_port":true}',
        b'{"tcp_port":9223372036854775808}',
        b'{"http_port":' + b"9" * 5000 + b"}",
        b'{"version":1}',
        b'{"hostname":[]}',
        b'{"remote_address":5}',
        b'{"more":NaN}',
        b"[" * 60000,
        b'{"a":' * 10000,
    ],
)
def test_undecodable(body: bytes) -> None:
    with pytest.raises(FatalClientError) as raised:
        parse_peer_info(body, "p")
    assert raised.value.payload == b"E_BAD_BODY IDENTIFY failed to decode JSON body"
