"""Messages as they were published: a stamp, the first id, and each body behind its size, as in an MPUB. Hot.

A batch is kept so, and goes to the log so, until somebody is to be given it: only then are frames made of it. To make
them takes a third of what a batch costs its publisher (MPUB: 0.80 µs a message with it, see docs/performance.md).
"""

from struct import Struct
from struct import error as StructError
from typing import Final

from pynsqd.core.ids import ids_from
from pynsqd.wire.constants import ID_LENGTH
from pynsqd.wire.decoder import cut_messages
from pynsqd.wire.encoder import message_frame, message_frames

_STAMP: Final = Struct(">q")
_ID_AT: Final = _STAMP.size
HEAD_SIZE: Final = _ID_AT + ID_LENGTH
_SIZE: Final = Struct(">I")  # before each body
SIZE_SIZE: Final = _SIZE.size


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


def unpack(payload: bytes, count: int) -> tuple[list[bytes], bytes]:
    """Return the ids and frames of the ``count`` messages behind their head, as the log keeps them.

    Raises ValueError if they are not so many, or their sizes are wrong.
    """
    size = len(payload) - HEAD_SIZE
    if not 0 < count * SIZE_SIZE <= size:  # before so many ids are made
        raise ValueError("too short for its messages")
    if count == 1 and _SIZE.unpack_from(payload, HEAD_SIZE)[0] != size - SIZE_SIZE:
        raise ValueError("sizes do not add up")
    ids = ids_from(first_id(payload), count)
    try:
        return ids, frames(payload, payload, HEAD_SIZE, ids)
    except StructError:
        raise ValueError("sizes do not add up") from None


def frames(head: bytes, messages: bytes, begin: int, ids: list[bytes]) -> bytes:
    """Make the frames of the first delivery of the messages from offset ``begin`` on; ``ids`` are theirs."""
    if len(ids) == 1:
        return message_frame(head[:_ID_AT], ids[0], memoryview(messages)[begin + SIZE_SIZE :])
    bodies, size = cut_messages(messages, begin, len(ids))
    return message_frames(ids, bodies, timestamp_ns(head), size)
