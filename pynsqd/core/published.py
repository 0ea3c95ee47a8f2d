"""Messages as they were published: a stamp, the first id, and each body behind its size, as in an MPUB. Hot.

A batch is kept so, and goes to the log so, until somebody is to be given it: only then are frames made of it. To make
them takes a third of what a batch costs its publisher (MPUB: 0.80 µs a message with it, see docs/performance.md).
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from pynsqd.wire.constants import ID_LENGTH
from pynsqd.wire.decoder import cut_messages
from pynsqd.wire.encoder import message_frame, message_frames

_STAMP: Final = Struct(">q")
_ID_AT: Final = _STAMP.size
HEAD_SIZE: Final = _ID_AT + ID_LENGTH
SIZE_SIZE: Final = 4  # bytes of the size before each body


def pack(first_id: bytes, timestamp_ns: int, messages: Sequence[bytes]) -> bytes:
    """Put together messages that have ids from ``first_id`` on, see ids_from; ``messages`` are sized, see ``sized``."""
    return b"".join((_STAMP.pack(timestamp_ns), first_id, *messages))


def timestamp_ns(published: bytes) -> int:
    """Return when they were published, in ns since the epoch."""
    stamp: int = _STAMP.unpack_from(published)[0]
    return stamp


def first_id(published: bytes) -> bytes:
    """Return the id of the first."""
    return published[_ID_AT:HEAD_SIZE]


def frames(published: bytes, ids: list[bytes]) -> bytes:
    """Make the frames of the first delivery; ``ids`` are those of the messages."""
    if len(ids) == 1:
        return message_frame(published[:_ID_AT], ids[0], published[HEAD_SIZE + SIZE_SIZE :])
    bodies, size = cut_messages(published, HEAD_SIZE, len(ids))
    return message_frames(ids, bodies, timestamp_ns(published), size)
