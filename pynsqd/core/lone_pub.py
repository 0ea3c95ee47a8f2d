"""A PUB in a read of its own, as a publisher that waits for each answer sends them (PROTOCOL 1.4). Hot."""

from struct import Struct
from typing import TYPE_CHECKING, Final

from pynsqd.core.publishing import pub_again

if TYPE_CHECKING:
    from pynsqd.core.session import Session

_size_at: Final = Struct(">i").unpack_from


def take_lone_pub(session: "Session", data: bytes) -> bool:
    """Publish if ``data`` is one whole PUB with the line of the last one, and tell whether it is.

    Nothing may be with the decoder then. That it need not see the bytes saves 130 of a PUB's 880 bytecodes, 1 µs.
    Raises FatalClientError.
    """
    line = session.pub_line
    body_at = len(line) + 4
    size = len(data) - body_at
    if not 0 < size <= session.broker.options.max_msg_size or not data.startswith(line):
        return False
    if _size_at(data, body_at - 4)[0] != size:
        return False
    pub_again(session, data[body_at:])
    return True
