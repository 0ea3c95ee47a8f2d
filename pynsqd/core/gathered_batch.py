"""Messages that are published together, all or nothing, while they are gathered."""

from pynsqd.core.batch import Published


class GatheredBatch:
    """``pieces`` of sized messages, and in ``counts`` how many each is; what is ``staged`` comes before them."""

    __slots__ = ("counts", "pieces", "staged")

    def __init__(self, pieces: list[bytes], counts: list[int], staged: list[Published]) -> None:
        self.pieces = pieces
        self.counts = counts
        self.staged = staged

    def take_back(self) -> None:
        """Make pieces again of what was staged."""
        self.pieces = [one.messages for one in self.staged] + self.pieces
        self.counts = [one.count for one in self.staged] + self.counts
        self.staged = []
