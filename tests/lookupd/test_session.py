"""lookupd/session: the V1 protocol as bytes in, bytes out (PROTOCOL 5.1)."""

import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookupd.registration_db import RegistrationDB
from lookupd.session import Session
from pynsqd.wire.lookup_v1 import MAX_IDENTIFY_BODY, MAX_LINE, sized

PEER = "10.0.0.1:5000"
ME = b'{"version":"1.3.0"}'
FULL = {"version": "1.3.0", "tcp_port": 4150, "http_port": 4151, "hostname": "h", "broadcast_address": "ba"}
OK = sized(b"OK")


def identify(body: bytes | None = None) -> bytes:
    return b"IDENTIFY\n" + sized(json.dumps(FULL).encode() if body is None else body)


def session() -> tuple[Session, RegistrationDB]:
    db = RegistrationDB(10**12, 10**12)
    return Session(PEER, db, lambda: ME), db


def talk(data: bytes) -> tuple[bytes, Session, RegistrationDB]:
    """Send the magic and ``data`` to a new session."""
    one, db = session()
    return one.receive(b"  V1" + data, 7), one, db


def test_bad_magic() -> None:
    one, _ = session()
    assert one.receive(b"  V2PING\n", 0) == sized(b"E_BAD_PROTOCOL")
    assert one.closing
    assert one.receive(b"PING\n", 0) == b""


def test_half_a_magic_is_waited_for() -> None:
    one, _ = session()
    assert one.receive(b"  V", 0) == b""
    assert not one.greeted
    assert one.receive(b"1", 0) == b""
    assert one.greeted
    assert one.end() == b""
    assert one.closing


@pytest.mark.parametrize("line", [b"PING\n", b"PING x\n", b"  PING\t \r\n"])
def test_ping_before_identify(line: bytes) -> None:
    answer, one, _ = talk(line)
    assert answer == OK
    assert not one.closing


def test_ping_renews_what_register_does_not() -> None:
    _, one, db = talk(identify())
    assert one.producer is not None
    assert one.producer.last_update_ns == 7
    assert one.receive(b"REGISTER t\n", 8) == OK
    assert one.producer.last_update_ns == 7
    assert one.receive(b"PING\n", 9) == OK
    assert one.producer.last_update_ns == 9
    assert db.lookup("t", 9) == [one.producer]


def test_identify() -> None:
    answer, one, db = talk(identify())
    assert answer == sized(ME)
    assert one.producer is not None
    assert one.producer.info.shown() == {"remote_address": PEER} | FULL
    assert db.nodes(7) == [one.producer]
    one.leave()
    assert db.nodes(7) == []


def test_leave_without_identify() -> None:
    _, one, _ = talk(b"PING\n")
    one.leave()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\n", b"E_INVALID invalid command "),
        (b"ping\n", b"E_INVALID invalid command ping"),
        (b"FOO bar\n", b"E_INVALID invalid command FOO"),
        (b"F\xff\n", b"E_INVALID invalid command F\xff"),
        (b"REGISTER\n", b"E_INVALID client must IDENTIFY"),
        (b"REGISTER $ $\n", b"E_INVALID client must IDENTIFY"),
        (b"UNREGISTER t\n", b"E_INVALID client must IDENTIFY"),
        (b"IDENTIFY\n" + struct.pack(">i", -1), b"E_BAD_BODY IDENTIFY invalid body size -1"),
        (b"IDENTIFY\n" + struct.pack(">i", -(2**31)), b"E_BAD_BODY IDENTIFY invalid body size -2147483648"),
        (
            b"IDENTIFY\n" + struct.pack(">i", MAX_IDENTIFY_BODY + 1),
            b"E_BAD_BODY IDENTIFY body too big 65537 > 65536",
        ),
        (identify(b""), b"E_BAD_BODY IDENTIFY failed to decode JSON body"),
        (identify(b"xx"), b"E_BAD_BODY IDENTIFY failed to decode JSON body"),
        (identify(b"[" * MAX_IDENTIFY_BODY), b"E_BAD_BODY IDENTIFY failed to decode JSON body"),
        (identify(b"{}"), b"E_BAD_BODY IDENTIFY missing fields"),
    ],
)
def test_errors_before_identify(data: bytes, error: bytes) -> None:
    answer, one, db = talk(data + b"PING\n")
    assert answer == sized(error)
    assert one.closing
    assert one.refusal.encode("utf-8", "surrogateescape") == error
    assert db.nodes(0) == []


@pytest.mark.parametrize("missing", ["version", "tcp_port", "http_port", "broadcast_address"])
def test_identify_needs(missing: str) -> None:
    for value in ({}, {missing: type(FULL[missing])()}):
        body = {name: FULL[name] for name in FULL if name != missing} | value
        answer, _, _ = talk(identify(json.dumps(body).encode()))
        assert answer == sized(b"E_BAD_BODY IDENTIFY missing fields")


def test_hostname_is_optional() -> None:
    body = {name: FULL[name] for name in FULL if name != "hostname"}
    assert talk(identify(json.dumps(body).encode()))[0] == sized(ME)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (identify(), b"E_INVALID cannot IDENTIFY again"),
        (b"IDENTIFY\n", b"E_INVALID cannot IDENTIFY again"),
        (b"REGISTER\n", b"E_INVALID REGISTER insufficient number of params"),
        (b"UNREGISTER \n", b"E_INVALID UNREGISTER insufficient number of params"),
        (b"REGISTER  t\n", b"E_BAD_TOPIC REGISTER topic name '' is not valid"),
        (b"REGISTER $ $\n", b"E_BAD_TOPIC REGISTER topic name '$' is not valid"),
        (b"REGISTER * c\n", b"E_BAD_TOPIC REGISTER topic name '*' is not valid"),
        (b"UNREGISTER \xff t\n", b"E_BAD_TOPIC UNREGISTER topic name '\xff' is not valid"),
        (b"REGISTER t $\n", b"E_BAD_CHANNEL REGISTER channel name '$' is not valid"),
        (b"UNREGISTER t c#x\n", b"E_BAD_CHANNEL UNREGISTER channel name 'c#x' is not valid"),
    ],
)
def test_errors_after_identify(data: bytes, error: bytes) -> None:
    answer, one, db = talk(identify() + data)
    assert answer == sized(ME) + sized(error)
    assert one.closing
    assert db.topics() == []


def test_register_and_unregister() -> None:
    _, one, db = talk(identify())
    assert one.receive(b"REGISTER t\nREGISTER t c extra\nREGISTER u  x\n", 0) == OK * 3
    assert db.topics() == ["t", "u"]
    assert (db.channels("t"), db.channels("u")) == (["c"], [])
    assert one.receive(b"UNREGISTER t c\nUNREGISTER nope\nUNREGISTER u\n", 0) == OK * 3
    assert db.lookup("t", 0) == [one.producer]
    assert db.lookup("u", 0) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", b""),
        (b"PIN", b""),
        (b"IDENTIFY\n", b"E_BAD_BODY IDENTIFY failed to read body size"),
        (b"IDENTIFY\n\0\0\0", b"E_BAD_BODY IDENTIFY failed to read body size"),
        (b"IDENTIFY\n\0\0\0\x09", b"E_BAD_BODY IDENTIFY failed to read body"),
        (b"IDENTIFY\n\0\0\0\x09{", b"E_BAD_BODY IDENTIFY failed to read body"),
    ],
)
def test_end_of_input(data: bytes, error: bytes) -> None:
    answer, one, _ = talk(data)
    assert answer == b""
    assert one.end() == (sized(error) if error else b"")
    assert one.closing
    assert one.end() == b""


def test_endless_line_closes_without_a_word() -> None:
    answer, one, _ = talk(b"x" * (MAX_LINE + 1))
    assert answer == b""
    assert one.closing
    assert one.refusal


SCRIPT = (
    b"  V1PING\n"
    + identify()
    + b"REGISTER t c\r\nREGISTER u\n  PING  \nUNREGISTER u\nREGISTER e#ephemeral x#ephemeral\nIDENTIFY\n"
)
ANSWERS = OK + sized(ME) + OK * 5 + sized(b"E_INVALID cannot IDENTIFY again")


@given(st.lists(st.integers(0, len(SCRIPT)), max_size=12))
def test_split_at_any_byte(cuts: list[int]) -> None:
    one, db = session()
    answers = b""
    edges = [0, *sorted(cuts), len(SCRIPT)]
    for start, end in pairwise(edges):
        answers += one.receive(SCRIPT[start:end], 0)
    assert answers == ANSWERS
    assert db.topics() == ["t", "u", "e#ephemeral"]


@given(st.binary(max_size=200))
def test_noise_never_raises(noise: bytes) -> None:
    one, _ = session()
    one.receive(b"  V1" + noise, 0)
    one.end()
    one.leave()


@given(st.binary(max_size=60), st.integers(-(2**31), 2**31 - 1))
def test_any_identify_is_answered_or_waited_for(body: bytes, size: int) -> None:
    _, one, _ = talk(b"IDENTIFY\n" + struct.pack(">i", size) + body)
    one.end()
    assert one.closing
