"""A batch: messages that were published, or came back, together, as ready-to-send frames."""

from pynsqd.core.ids import ids_from
from pynsqd.wire.encoder import message_id, skip_frames, split_frames


class Batch:
    """Message ids and their frames, in order. Immutable but for its place; the channels of a topic share it.

    ``position`` is where in the log it begins, -1 if it is only in memory. A ``fresh`` batch is one that every channel
    gets in its turn, so a cursor says enough about it; one that is not fresh came back to one channel, which has to
    remember it by name. ``skipped`` messages of the record at ``position`` come before the first one here.

    Two bytes objects and a list of bytes for any number of messages, so the garbage collector has next to nothing to
    visit and a whole batch goes to a consumer without being copied.
    """

    __slots__ = ("_ids", "count", "frames", "fresh", "position", "skipped")

    def __init__(
        self,
        ids: list[bytes] | None,
        frames: bytes,
        position: int = -1,
        *,
        count: int = 0,
        fresh: bool = True,
        skipped: int = 0,
    ) -> None:
        """Without ``ids`` they are those of ``count`` messages that one IdGenerator has named together."""
        self._ids = ids
        self.count = count if ids is None else len(ids)
        self.frames = frames
        self.position = position
        self.fresh = fresh
        self.skipped = skipped

    @property
    def ids(self) -> list[bytes]:
        """The ids of the messages. Made when they are first asked for: a channel that is behind never does."""
        if self._ids is None:
            self._ids = ids_from(message_id(self.frames), self.count)
        return self._ids

    def __len__(self) -> int:
        return self.count

    def first(self, count: int) -> "Batch":
        """Return a batch of the first ``count`` messages."""
        frames = self.frames[: skip_frames(self.frames, 0, count)]
        return Batch(self.ids[:count], frames, self.position, fresh=self.fresh, skipped=self.skipped)

    def only(self, ids: list[bytes]) -> "Batch":
        """Return a batch of the messages ``ids`` of this one; nobody else gets them in turn any more."""
        if len(ids) == len(self.ids):
            return self
        frames = dict(zip(self.ids, split_frames(self.frames), strict=True))
        return Batch(ids, b"".join(frames[one] for one in ids), self.position, fresh=False)

    def after(self, count: int) -> "Batch":
        """Return a batch of all but the first ``count`` messages."""
        frames = self.frames[skip_frames(self.frames, 0, count) :]
        return Batch(self.ids[count:], frames, self.position, fresh=self.fresh, skipped=self.skipped + count)
