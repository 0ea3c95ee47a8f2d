"""The messages of an MPUB while they come in (PROTOCOL 1.4). Hot."""

from typing import TYPE_CHECKING, Final

from pynsqd.core.batch import Batch
from pynsqd.wire.decoder import BadMessageSize, BatchOverrun, Decoder
from pynsqd.wire.errors import E_BAD_BODY, E_BAD_MESSAGE, FatalClientError

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker

# From here on what has come is framed while the rest is awaited: the turn that published 25,000 messages (5 MB) at once
# kept everybody else waiting for 24 ms, and has only to append them now. Ids are then given as messages come, as nsqd
# does, and the log has a record for each part.
_WORTH_FRAMING: Final = 1 << 16
_MOST_PARTS: Final = 256  # the system takes 1024 pieces in one write, and a record is two


class IncomingBatch:
    """Takes ``count`` messages, no more than ``size`` bytes with their sizes, out of what comes."""

    __slots__ = ("_broker", "_count", "_left", "_size", "_unframed_from", "_worth", "bodies", "framed", "framed_count")

    def __init__(self, broker: "Broker", count: int, size: int) -> None:
        self._broker = broker
        self._count = count
        self._left = self._size = size  # bytes that have not come, and of the whole body
        self._unframed_from = size
        self._worth = max(_WORTH_FRAMING, size // _MOST_PARTS)
        self.bodies: list[bytes] = []  # those that came last
        self.framed: list[Batch] = []  # what came before them, if that is much
        self.framed_count = 0

    @property
    def arrived(self) -> int:
        """How many messages have come."""
        return self.framed_count + len(self.bodies)

    def read(self, decoder: Decoder, now_ns: int) -> bool:
        """Take what has come; tell whether that is all. Raises FatalClientError for what can be no batch."""
        longest = self._broker.options.max_msg_size
        missing = self._count - self.framed_count
        try:
            self._left = decoder.messages(self.bodies, missing, self._left, longest)
        except BadMessageSize as bad:
            if bad.size > 0:
                what = f"MPUB message too big {bad.size} > {longest}"
            else:
                what = f"MPUB invalid message({self.framed_count + bad.index}) body size {bad.size}"
            raise FatalClientError(E_BAD_MESSAGE, what) from None
        except BatchOverrun:
            raise self._mismatch() from None
        if len(self.bodies) < missing:
            if self._unframed_from - self._left >= self._worth:
                self.frame(now_ns)
            return False
        if self._left:
            raise self._mismatch()
        return True

    def frame(self, now_ns: int) -> None:
        """Frame what has come since the last time."""
        broker = self._broker
        self._unframed_from = self._left
        self.framed_count += len(self.bodies)
        self.framed.append(broker.frame(self.bodies, broker.wall_ns(now_ns)))
        self.bodies = []

    def _mismatch(self) -> FatalClientError:
        return FatalClientError(E_BAD_BODY, f"MPUB body size {self._size + 4} does not match its messages")
