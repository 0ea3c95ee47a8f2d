"""httpapi/publish: what a query asks for and how a batch is cut (PROTOCOL 2.2, 2.4)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.httpapi import publish
from pynsqd.httpapi.publish import Target, read_target, split, too_big
from pynsqd.options import Options
from pynsqd.runtime.http import HttpError
from pynsqd.wire.decoder import cut_messages
from tests.support.wire import sized

OPTIONS = Options(max_msg_size=10, max_body_size=50)


def refused(target: Target) -> str:
    assert target.refusal is not None
    assert target.refusal.status == 400
    return str(json.loads(target.refusal.body)["message"])


def test_topic_of_a_publish() -> None:
    target = read_target("/pub", "topic=t%23ephemeral&topic=$", OPTIONS)
    assert target == Target(batch=False, limit=10, longest=10, topic="t#ephemeral")


def test_a_batch_has_the_limit_of_a_body() -> None:
    assert read_target("/mpub", "topic=t", OPTIONS) == Target(batch=True, limit=50, longest=10, topic="t")


@pytest.mark.parametrize("path", ["/pub", "/mpub"])
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("topic=%zz", "INVALID_REQUEST"),
        ("a;b&topic=t", "INVALID_REQUEST"),
        ("", "MISSING_ARG_TOPIC"),
        ("TOPIC=t", "MISSING_ARG_TOPIC"),
        ("topic=", "INVALID_TOPIC"),
        ("topic", "INVALID_TOPIC"),
        ("topic=$", "INVALID_TOPIC"),
        ("topic=t%0A", "INVALID_TOPIC"),
        ("topic=" + 65 * "t", "INVALID_TOPIC"),
        ("defer=-1&topic=$", "INVALID_TOPIC"),
    ],
)
def test_bad_topics(path: str, query: str, message: str) -> None:
    target = read_target(path, query, OPTIONS)
    assert refused(target) == message
    assert not target.topic


@pytest.mark.parametrize(
    ("defer", "delay_ms"),
    [("0", 0), ("100", 100), ("%2B5", 5), ("-0", 0), ("0007", 7), (5000 * "0" + "1", 1), ("3600000", 3600000)],
)
def test_defer(defer: str, delay_ms: int) -> None:
    assert read_target("/pub", f"topic=t&defer={defer}", OPTIONS).delay_ns == delay_ms * 1_000_000


@pytest.mark.parametrize(
    "defer", ["", "-1", "abc", "1.5", "3600001", "+5", "1_0", " 1", "1e3", "%D9%A1", "99999999999999999999", "%2B", "-"]
)
def test_bad_defer_names_its_topic_which_is_created(defer: str) -> None:
    target = read_target("/pub", f"topic=t&defer={defer}", OPTIONS)
    assert refused(target) == "INVALID_DEFER"
    assert target.topic == "t"


def test_a_batch_cannot_be_deferred() -> None:
    assert read_target("/mpub", "topic=t&defer=x", OPTIONS).refusal is None


@pytest.mark.parametrize(
    ("value", "binary"), [("true", True), ("1", True), ("", True), ("x", True), ("false", False), ("0", False)]
)
def test_binary(value: str, binary: bool) -> None:
    assert read_target("/mpub", f"topic=t&binary={value}", OPTIONS).binary is binary


def parts_of(body: bytes, binary: bool) -> list[list[bytes]]:
    return [cut_messages(piece, 0, count)[0] if count else [] for piece, count in split(body, binary, OPTIONS)]


def lines(body: bytes) -> list[bytes]:
    return [one for part in parts_of(body, False) for one in part]


def binary_batch(body: bytes) -> list[bytes]:
    return [one for part in parts_of(body, True) for one in part]


def test_lines() -> None:
    assert lines(b"") == lines(b"\n\n") == []
    assert lines(b"a\n\nb\r\n0123456789") == [b"a", b"b\r", b"0123456789"]
    with pytest.raises(HttpError, match="413 MSG_TOO_BIG"):
        lines(b"a\n01234567890\n")


def batch(*bodies: bytes, count: int | None = None) -> bytes:
    return (len(bodies) if count is None else count).to_bytes(4, "big", signed=True) + b"".join(map(sized, bodies))


def test_binary_batch() -> None:
    assert binary_batch(batch(b"a", b"0123456789")) == [b"a", b"0123456789"]
    assert binary_batch(batch(b"a", b"b", count=1)) == [b"a"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "BAD_BODY"),
        (b"\0\0\0", "BAD_BODY"),
        (batch(), "BAD_BODY"),
        (batch(b"a", count=-1), "BAD_BODY"),
        (batch(b"a", count=10), "BAD_BODY"),  # (50 - 4) // 5 is 9
        (batch(b"a", count=9), "BAD_MESSAGE"),
        (batch(b"a", count=2), "BAD_MESSAGE"),
        (batch(b"a", count=2) + b"\0\0\0", "BAD_MESSAGE"),
        (batch(b""), "BAD_MESSAGE"),
        (batch(b"01234567890"), "BAD_MESSAGE"),
        (batch(b"a")[:-1], "BAD_MESSAGE"),
        (b"\0\0\0\1\xff\xff\xff\xff", "BAD_MESSAGE"),
    ],
)
def test_bad_binary_batches(body: bytes, code: str) -> None:
    with pytest.raises(HttpError, match=f"413 {code}"):
        binary_batch(body)


@given(
    st.lists(st.binary(max_size=11), max_size=9) | st.just([b"a"] * 9),
    st.booleans(),
    st.integers(-2, 1),
    st.integers(1, 20),
)
def test_parts_are_the_whole(bodies: list[bytes], binary: bool, off: int, size: int) -> None:
    """Messages and errors."""
    body = batch(*bodies, count=len(bodies) + off) if binary else b"\n".join(bodies)
    whole = binary_batch if binary else lines
    try:
        expected = whole(body)
    except HttpError as error:
        expected, refusal = None, str(error)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "_PART", size)
        if expected is None:
            with pytest.raises(HttpError, match=refusal):
                whole(body)
        else:
            parts = parts_of(body, binary)
            assert [one for part in parts for one in part] == expected
            assert all(sum(len(one) for one in part[:-1]) < size for part in parts)


def test_parts_without_messages_end_a_turn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_PART", 10)
    assert parts_of(b"a" + b"\n" * 39 + b"b", False) == [[b"a"], [], [], [], [b"b"]]


@pytest.mark.parametrize(
    ("path", "query", "begin", "message"),
    [
        ("/pub", "", b"", "MSG_TOO_BIG"),
        ("/mpub", "", b"", "BODY_TOO_BIG"),
        ("/mpub", "", b"0123456789\nxxxxxxxxxxx", "BODY_TOO_BIG"),
        ("/mpub", "", b"01234567890\nx", "MSG_TOO_BIG"),
        ("/mpub", "binary=1", b"01234567890\nx", "BODY_TOO_BIG"),
    ],
)
def test_too_big(path: str, query: str, begin: bytes, message: str) -> None:
    reply = too_big(read_target(path, f"topic=t&{query}", OPTIONS), begin)
    assert (reply.status, reply.close) == (413, True)
    assert json.loads(reply.body) == {"message": message}
