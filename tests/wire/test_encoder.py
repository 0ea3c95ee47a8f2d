"""Frames (PROTOCOL 1.1, 1.7)."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.wire import encoder

IDS = st.integers(min_value=0, max_value=2**64 - 1).map(lambda number: b"%016x" % number)
MESSAGES = st.lists(st.tuples(IDS, st.binary(min_size=1, max_size=40)), max_size=30)
STAMP = 1_700_000_000_123_456_789


def _frame(one: bytes, body: bytes, stamp: int = STAMP, attempts: int = 1) -> bytes:
    return struct.pack(">iiqH", 30 + len(body), 2, stamp, attempts) + one + body


def test_responses_and_errors() -> None:
    assert encoder.response(b"OK") == b"\0\0\0\x06\0\0\0\0OK" == encoder.OK
    assert encoder.response(b"") == b"\0\0\0\x04\0\0\0\0"
    assert encoder.error(b"E_INVALID x") == b"\0\0\0\x0f\0\0\0\x01E_INVALID x"
    assert encoder.HEARTBEAT == b"\0\0\0\x0f\0\0\0\0_heartbeat_"
    assert encoder.CLOSE_WAIT == b"\0\0\0\x0e\0\0\0\0CLOSE_WAIT"


@given(MESSAGES)
def test_a_batch_is_its_frames_one_after_the_other(messages: list[tuple[bytes, bytes]]) -> None:
    ids = [one for one, _ in messages]
    bodies = [body for _, body in messages]
    frames = encoder.message_frames(ids, bodies, STAMP)
    assert frames == b"".join(_frame(one, body) for one, body in messages)
    single = encoder.split_frames(frames)
    assert b"".join(single) == frames
    assert [encoder.message_id(frame) for frame in single] == ids
    assert all(encoder.timestamp_ns(frame) == STAMP for frame in single)
    assert all(encoder.attempts(frame) == 1 for frame in single)
    assert [encoder.skip_frames(frames, 0, count) for count in range(len(single) + 1)] == [
        sum(map(len, single[:count])) for count in range(len(single) + 1)
    ]


def test_skipping_starts_anywhere() -> None:
    frames = encoder.message_frames([b"a" * 16, b"b" * 16, b"c" * 16], [b"1", b"22", b"333"], STAMP)
    second = encoder.skip_frames(frames, 0, 1)
    assert encoder.skip_frames(frames, second, 1) == encoder.skip_frames(frames, 0, 2)
    assert encoder.message_id(frames[second:]) == b"b" * 16


@pytest.mark.parametrize("size", [-1, -4, -34, -1000])
def test_sizes_that_cannot_be_lead_on(size: int) -> None:
    """Who goes from frame to frame comes to an end in damaged ones too."""
    frames = struct.pack(">i", size) + bytes(30)
    assert encoder.skip_frames(frames, 0, 1) > len(frames)
    assert encoder.skip_within(frames, 0, 1, 1)[1] > len(frames)
    assert encoder.split_frames(frames) == [frames]


def test_more_sizes_than_are_remembered() -> None:
    for start in (1, 3000, 5000, 1):
        bodies = [bytes(length) for length in range(start, start + 4000, 7)]
        frames = encoder.message_frames([b"%016d" % len(body) for body in bodies], bodies, STAMP)
        assert frames == b"".join(_frame(b"%016d" % len(body), body) for body in bodies)
    for length in range(1, 5000):
        assert encoder.message_frames([b"i" * 16], [bytes(length)], STAMP)[:8] == struct.pack(">ii", 30 + length, 2)


@given(st.integers(min_value=0, max_value=65535), st.binary(max_size=20))
def test_the_next_attempt_changes_two_bytes(attempts: int, body: bytes) -> None:
    frame = _frame(b"0123456789abcdef", body, attempts=attempts)
    again = encoder.next_attempt(frame)
    assert again == _frame(b"0123456789abcdef", body, attempts=(attempts + 1) % 65536)
    assert encoder.attempts(again) == (attempts + 1) % 65536
