"""A batch: messages that were published in one turn, as ready-to-send frames."""

from pynsqd.wire.encoder import skip_frames


class Batch:
    """Message ids and their frames, in publish order. Immutable; the channels of a topic share it.

    Two bytes objects and a list of bytes for any number of messages, so the garbage collector has next to nothing to
    visit and a whole batch goes to a consumer without being copied.
    """

    __slots__ = ("frames", "ids")

    def __init__(self, ids: list[bytes], frames: bytes) -> None:
        self.ids = ids
        self.frames = frames

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int) -> "Batch":
        """Return a batch of the first ``count`` messages."""
        return Batch(self.ids[:count], self.frames[: skip_frames(self.frames, 0, count)])
