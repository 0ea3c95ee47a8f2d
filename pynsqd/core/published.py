"""Messages as they were published: a stamp, the first id, and each body behind its size, as in an MPUB. Hot.

A batch is kept so, and goes to the log so, until somebody is to be given it: only then are frames made of it. To make
them takes a third of what a batch costs its publisher (MPUB: 0.80 µs a message with it, see docs/performance.md).
"""

from struct import Struct
from typing import Final

from pynsqd.wire.constants import ID_LENGTH
from pynsqd.wire.decoder import cut_messages
from pynsqd.wire.encoder import message_frame, message_frames

_STAMP: Final = Struct(">q")
_ID_AT: Final = _STAMP.size
HEAD_SIZE: Final = _ID_AT + ID_LENGTH
SIZE_SIZE: Final = 4  # bytes of the size before each body


def pack_head(first_id: bytes, timestamp_ns: int) -> bytes:
    """Return what stands before messages that have ids from ``first_id`` on, see ids_from."""
    return _STAMP.pack(timestamp_ns) + first_id


def timestamp_ns(head: bytes) -> int:
    """Return when they were published, in ns since the epoch."""
    stamp: int = _STAMP.unpack_from(head)[0]
    return stamp


def first_id(head: bytes) -> bytes:
    """Return the id of the first."""
    return head[_ID_AT:HEAD_SIZE]


def frames(head: bytes, messages: bytes, begin: int, ids: list[bytes]) -> bytes:
    """Make the frames of the first delivery of the messages from offset ``begin`` on; ``ids`` are theirs."""
    if len(ids) == 1:
        return message_frame(head[:_ID_AT], ids[0], memoryview(messages)[begin + SIZE_SIZE :])
    bodies, size = cut_messages(messages, begin, len(ids))
    return message_frames(ids, bodies, timestamp_ns(head), size)
