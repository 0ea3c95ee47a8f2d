"""Messages that are published together, all or nothing, while they are gathered."""

from collections.abc import Iterable

from pynsqd.core.batch import Published


class GatheredBatch:
    """``pieces`` of sized messages, and in ``counts`` how many each is; what is ``staged`` comes before them."""

    __slots__ = ("counts", "pieces", "staged")

    def __init__(self, pieces: Iterable[bytes] = (), counts: Iterable[int] = ()) -> None:
        self.pieces = list(pieces)
        self.counts = list(counts)
        self.staged: list[Published] = []

    def take_back(self) -> None:
        """Make pieces again of what was staged."""
        self.pieces = [one.messages for one in self.staged] + self.pieces
        self.counts = [one.count for one in self.staged] + self.counts
        self.staged = []
