"""A batch: messages that were published, or came back, together."""

from typing import Final

from pynsqd.core import published
from pynsqd.core.ids import ids_from
from pynsqd.wire.constants import MESSAGE_HEADER
from pynsqd.wire.encoder import skip_frames, split_frames, timestamp_ns

_FRAMED: Final = MESSAGE_HEADER - published.SIZE_SIZE  # what a message grows by when it is framed


class Batch:
    """Message ids and their frames, in order. Immutable but for its place; the channels of a topic share it.

    ``position`` is where in the log it begins, -1 if it is only in memory. A ``fresh`` batch is one that every channel
    gets in its turn, so a cursor says enough about it; one that is not fresh came back to one channel, which has to
    remember it by name. ``skipped`` messages of the record at ``position`` come before the first one here.

    Two bytes objects and a list of bytes for any number of messages, so the garbage collector has next to nothing to
    visit and a whole batch goes to a consumer without being copied.
    """

    __slots__ = ("count", "frames", "fresh", "ids", "position", "size", "skipped")

    def __init__(
        self, ids: list[bytes], frames: bytes, position: int = -1, *, fresh: bool = True, skipped: int = 0
    ) -> None:
        self.ids = ids
        self.frames = frames
        self.count = len(ids)
        self.position = position
        self.fresh = fresh
        self.size = len(frames)  # bytes of the frames
        self.skipped = skipped

    def __len__(self) -> int:
        return self.count

    def timestamp_ns(self, offset: int = 0) -> int:
        """Return when the message with the frame at ``offset`` was published, in ns since the epoch."""
        return timestamp_ns(self.frames, offset)

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


class Published(Batch):
    """Messages as they were published, all at once. Ids and frames are made when one channel asks, for all of them."""

    __slots__ = ("_frames", "_ids", "_messages", "head")

    def __init__(self, head: bytes, messages: bytes, count: int) -> None:
        """``messages`` are ``count`` of them, each behind its size."""
        self._frames: bytes | None = None
        self._ids: list[bytes] | None = None
        self._messages = messages
        self.head = head
        self.count = count
        self.position = -1
        self.fresh = True
        self.size = len(messages) + count * _FRAMED
        self.skipped = 0

    @property
    def messages(self) -> bytes:
        """What the log keeps behind the head; not to be asked for once there are frames."""
        assert self._frames is None  # noqa: S101 - a batch is in the log before any channel has it
        return self._messages

    @property
    def ids(self) -> list[bytes]:  # type: ignore[override]
        """The ids of the messages."""
        if self._ids is None:
            self._ids = ids_from(published.first_id(self.head), self.count)
        return self._ids

    @property
    def frames(self) -> bytes:  # type: ignore[override]
        """The messages as they are sent, one frame after the other."""
        if self._frames is None:
            self._frames = published.frames(self.head, self._messages, 0, self.ids)
            self._messages = b""
        return self._frames

    def timestamp_ns(self, offset: int = 0) -> int:
        """Return when they were published, in ns since the epoch."""
        return published.timestamp_ns(self.head)
