"""Frames from the server to the client (PROTOCOL 1.1, 1.7). Hot: a batch is framed in a fixed number of C calls."""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from pynsqd.wire.constants import (
    ATTEMPTS_AT,
    FRAME_ERROR,
    FRAME_MESSAGE,
    FRAME_RESPONSE,
    ID_AT,
    ID_LENGTH,
    MESSAGE_HEADER,
)

_HEAD: Final = Struct(">ii")
_STAMP: Final = Struct(">qH")
_ATTEMPTS: Final = Struct(">H")
_TIMESTAMP: Final = Struct(">q")
_FIRST: Final = _ATTEMPTS.pack(1)
_SIZE: Final = Struct(">I")  # unsigned: in frames that are damaged too, each step leads on

# How many body sizes are remembered; a publisher with more distinct ones only pays for packing them again.
_MAX_HEADS: Final = 4096


def response(payload: bytes) -> bytes:
    """Frame ``payload`` as a response."""
    return _HEAD.pack(len(payload) + 4, FRAME_RESPONSE) + payload


def error(payload: bytes) -> bytes:
    """Frame ``payload`` as an error."""
    return _HEAD.pack(len(payload) + 4, FRAME_ERROR) + payload


OK: Final = response(b"OK")
HEARTBEAT: Final = response(b"_heartbeat_")
CLOSE_WAIT: Final = response(b"CLOSE_WAIT")


class _Heads(dict[int, bytes]):
    """Body length to the first eight bytes of its message frame: bodies of one size come in crowds."""

    def __missing__(self, length: int) -> bytes:
        if len(self) >= _MAX_HEADS:
            self.clear()
        head = _HEAD.pack(MESSAGE_HEADER - 4 + length, FRAME_MESSAGE)
        self[length] = head
        return head


_heads: Final = _Heads()


def message_frames(ids: list[bytes], bodies: Sequence[bytes | memoryview], timestamp_ns: int, size: int = 0) -> bytes:
    """Frame a batch of first deliveries (attempts = 1), one frame after the other. With ``size`` all bodies have that.

    Slice assignment and one join instead of a loop: 0.1 µs a message, 0.07 if they are of one size.
    """
    stamp = _STAMP.pack(timestamp_ns, 1)
    if size:
        parts: list[bytes | memoryview] = [_heads[size] + stamp] * (len(bodies) * 3)
        parts[1::3] = ids
        parts[2::3] = bodies
        return b"".join(parts)
    parts = [stamp] * (len(bodies) * 4)
    parts[0::4] = map(_heads.__getitem__, map(len, bodies))
    parts[2::4] = ids
    parts[3::4] = bodies
    return b"".join(parts)


def message_frame(timestamp: bytes, message_id: bytes, body: bytes | memoryview) -> bytes:
    """Frame one first delivery; ``timestamp`` is ns since the epoch in 8 bytes."""
    return b"".join((_heads[len(body)], timestamp, _FIRST, message_id, body))


def sized(bodies: list[bytes]) -> bytes:
    """Put messages one after the other as in an MPUB, each behind its size."""
    if len(bodies) == 1:
        return _SIZE.pack(len(bodies[0])) + bodies[0]
    parts: list[bytes] = [b""] * (2 * len(bodies))
    parts[0::2] = map(_SIZE.pack, map(len, bodies))
    parts[1::2] = bodies
    return b"".join(parts)


def skip_frames(frames: bytes, offset: int, count: int) -> int:
    """Return the offset behind ``count`` frames that start at ``offset``."""
    size_at = _SIZE.unpack_from
    for _ in range(count):
        offset += 4 + size_at(frames, offset)[0]
    return offset


def skip_within(frames: bytes, offset: int, count: int, budget: int) -> tuple[int, int]:
    """Skip up to ``count`` frames from ``offset``, no more once ``budget`` bytes are passed; at least one.

    Returns how many, and the offset behind them.
    """
    start = offset
    for done in range(1, count + 1):
        offset += 4 + _SIZE.unpack_from(frames, offset)[0]
        if offset - start >= budget:
            return done, offset
    return count, offset


def split_frames(frames: bytes) -> list[bytes]:
    """Cut frames that follow each other into single ones."""
    single = []
    offset = 0
    end = len(frames)
    while offset < end:
        stop = offset + 4 + _SIZE.unpack_from(frames, offset)[0]
        single.append(frames[offset:stop])
        offset = stop
    return single


def message_id(frame: bytes) -> bytes:
    """Return the 16-byte id of a message frame."""
    return frame[ID_AT : ID_AT + ID_LENGTH]


def timestamp_ns(frames: bytes, offset: int = 0) -> int:
    """Return when the message of the frame at ``offset`` was published, in ns since the epoch."""
    stamp: int = _TIMESTAMP.unpack_from(frames, offset + 8)[0]
    return stamp


def attempts(frame: bytes) -> int:
    """Return the attempts field of a message frame."""
    count: int = _ATTEMPTS.unpack_from(frame, ATTEMPTS_AT)[0]
    return count


def with_attempts(frame: bytes, count: int) -> bytes:
    """Return the frame with another attempts field; it wraps at 65536 as in nsqd."""
    return frame[:ATTEMPTS_AT] + _ATTEMPTS.pack(count & 0xFFFF) + frame[ID_AT:]


def next_attempt(frame: bytes) -> bytes:
    """Return the frame for the delivery after this one."""
    return with_attempts(frame, attempts(frame) + 1)
