"""The messages of an MPUB while they come in (PROTOCOL 1.4). Hot."""

from typing import TYPE_CHECKING

from pynsqd.wire.decoder import BadMessageSize, BatchOverrun, Decoder
from pynsqd.wire.errors import E_BAD_BODY, E_BAD_MESSAGE, FatalClientError

if TYPE_CHECKING:
    from pynsqd.options import Options


class IncomingBatch:
    """Takes ``count`` messages, no more than ``size`` bytes with their sizes, out of what comes."""

    __slots__ = ("_left", "_longest", "_size", "arrived", "count", "counts", "pieces")

    def __init__(self, options: "Options", count: int, size: int) -> None:
        self._longest = options.max_msg_size
        self._left = self._size = size  # bytes that have not come, and of the whole body
        self.count = count
        self.arrived = 0
        self.pieces: list[bytes] = []  # the messages, each behind its size, as they came, and how many are in each
        self.counts: list[int] = []

    def read(self, decoder: Decoder) -> bool:
        """Take what has come; tell whether that is all. Raises FatalClientError for what can be no batch."""
        try:
            piece, count = decoder.messages(self.count - self.arrived, self._left, self._longest)
        except BadMessageSize as bad:
            if bad.size > 0:
                what = f"MPUB message too big {bad.size} > {self._longest}"
            else:
                what = f"MPUB invalid message({self.arrived + bad.index}) body size {bad.size}"
            raise FatalClientError(E_BAD_MESSAGE, what) from None
        except BatchOverrun:
            raise self._mismatch() from None
        if count:
            self.pieces.append(piece)
            self.counts.append(count)
            self.arrived += count
            self._left -= len(piece)
        if self.arrived < self.count:
            return False
        if self._left:
            raise self._mismatch()
        return True

    def _mismatch(self) -> FatalClientError:
        return FatalClientError(E_BAD_BODY, f"MPUB body size {self._size + 4} does not match its messages")
