"""The messages of an MPUB while they come in (PROTOCOL 1.4). Hot."""

from typing import TYPE_CHECKING, Final

from pynsqd.core.gathered_batch import GatheredBatch
from pynsqd.wire.decoder import BadMessageSize, BatchOverrun, Decoder
from pynsqd.wire.errors import E_BAD_BODY, E_BAD_MESSAGE, FatalClientError

if TYPE_CHECKING:
    from pynsqd.options import Options

# Of an MPUB of so many bytes so many at a time are staged while the rest is awaited, see Publishes.stage: to write 5 MB
# in one turn held everybody else up for 14 ms.
_LONG: Final = 1 << 18
_STAGED_AT_ONCE: Final = 1 << 16


class IncomingBatch(GatheredBatch):
    """Takes ``count`` messages, no more than ``size`` bytes with their sizes, out of what comes."""

    __slots__ = ("_left", "_longest", "_size", "_unstaged_from", "arrived", "count")

    def __init__(self, options: "Options", count: int, size: int) -> None:
        super().__init__()
        self._longest = options.max_msg_size
        self._left = self._size = self._unstaged_from = size  # bytes that have not come, and of the whole body
        self.count = count
        self.arrived = 0

    @property
    def worth_staging(self) -> bool:
        """Whether so much has come since this was last true that it should be written to the log."""
        if self._size < _LONG or self._unstaged_from - self._left < _STAGED_AT_ONCE:
            return False
        self._unstaged_from = self._left
        return True

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
