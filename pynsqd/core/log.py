"""The seam to the storage: what the core asks of a topic's log (storage.topic_log, storage.deferred_store).

A *position* is an offset in the log that only grows; one with DEFERRED_BIT set is a place among the deferred messages.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from pynsqd.core.batch import Batch, Published

# What an OK promises (--durability): in memory, in the log, on the disk itself.
MEMORY: Final = "memory"
LOG: Final = "log"
FSYNC: Final = "fsync"

# What could not be read is tried again after so long.
READ_AGAIN_NS: Final = 1_000_000_000

DEFERRED_BIT: Final = 1 << 62
_BUCKET_AT: Final = 34
# Deferred messages are filed by due time in buckets of 2**36 ns, 69 s.
_BUCKET_SHIFT: Final = 36


def bucket_of(due_wall_ns: int) -> int:
    """Return the bucket for messages due at ``due_wall_ns``."""
    return due_wall_ns >> _BUCKET_SHIFT


def bucket_start_ns(bucket: int) -> int:
    """Return the first due time of a bucket, in wall ns."""
    return bucket << _BUCKET_SHIFT


def bucket_position(bucket: int) -> int:
    """Return the position of the first byte of a bucket."""
    return DEFERRED_BIT | bucket << _BUCKET_AT


def bucket_at(position: int) -> int:
    """Return the bucket that a position with DEFERRED_BIT lies in."""
    return (position & ~DEFERRED_BIT) >> _BUCKET_AT


class LogEnd(NamedTuple):
    """How far the log of a topic had come at some time."""

    position: int = 0
    sequence: int = 0  # messages ever appended for all channels
    serial: int = 0  # that of the next deferred message

    def or_beyond(self, other: "LogEnd") -> "LogEnd":
        """Return an end that is behind neither."""
        return LogEnd(*map(max, self, other))


@dataclass(frozen=True, slots=True)
class DeferredRecord:
    """What one append to the deferred messages has kept; ``channel`` is empty if it is for all channels."""

    serial: int
    channel: str
    due_wall_ns: int
    position: int
    ids: list[bytes]
    frames: bytes


class TopicLog(Protocol):
    """The log of one topic. What was appended without a StorageError survives a kill of the process."""

    end: int  # position behind the last record
    end_sequence: int  # messages ever appended for all channels

    @property
    def start(self) -> int:
        """Position of the oldest record that is kept, or the end."""
        ...

    @property
    def damaged_records(self) -> int:
        """Damaged places met since the log was opened."""
        ...

    @property
    def damaged_bytes(self) -> int:
        """The bytes of those."""
        ...

    staged: list[Published]

    def append(self, batch: Published) -> None:
        """Append a batch that was published, and what is staged before it, and set its position.

        Raises StorageError, and then nothing was appended, and nothing is staged any more.
        """
        ...

    def stage(self, batches: list[Published]) -> None:
        """Write batches that belong together with the one that is appended next, and set their positions.

        Until that is appended nobody reads them, and a crash or a failure leaves all of them or none. An
        ``append_owed`` takes them back: ``staged`` is another list then. Raises StorageError, and then nothing is
        staged any more.
        """
        ...

    def keeps(self, staged: list[Published]) -> bool:
        """Tell whether ``staged``, which was once ``self.staged``, still is, and may be followed by an append."""
        ...

    def unstage(self) -> None:
        """Take back what is staged."""
        ...

    def append_owed(self, channel: str, frames: bytes, count: int) -> int:
        """Append messages that one channel owes again; returns their position. Raises StorageError."""
        ...

    def read(self, position: int, stop: int, max_bytes: int) -> tuple[list[Batch], int, int]:
        """Read batches for all channels from ``position`` up to ``stop``, about ``max_bytes``, at least one.

        Returns them with the position behind them and the sequence number there; with ``stop`` at ``position`` just
        that number. Raises StorageError.
        """
        ...

    def fetch(self, position: int, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """Return the frames of ``ids``, which were appended at or soon after ``position``, as far as they are there."""
        ...

    def owed_since(self, position: int) -> Iterator[tuple[str, Batch]]:
        """Yield (channel, batch) for every ``append_owed`` from ``position`` on."""
        ...

    def live_segments(self) -> list[tuple[int, int]]:
        """Return position and bytes of each file."""
        ...

    def release(self, position: int) -> None:
        """Nothing below ``position`` is needed any more."""
        ...

    def sync(self) -> None:
        """Bring what was appended to the disk itself; may be called in another thread. Raises StorageError."""
        ...

    def probe(self) -> None:
        """Try whether the log can be written; may be called in another thread. Raises StorageError."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...

    def delete(self) -> None:
        """Close and remove the files, those of the deferred messages too."""
        ...


class DeferredStore(Protocol):
    """The deferred messages of one topic, filed by due time."""

    next_serial: int

    @property
    def first_serial(self) -> int:
        """Nothing that is kept has a serial below this."""
        ...

    def append(self, channel: str, due_wall_ns: int, frames: bytes, count: int) -> int:
        """Keep messages for ``channel`` (all if empty) and return their position. Raises StorageError."""
        ...

    def buckets(self) -> list[int]:
        """Return the buckets that hold anything, in order."""
        ...

    def load(self, bucket: int, from_serial: int = 0, due_after_ns: int = -1) -> Iterator[DeferredRecord]:
        """Yield what a bucket holds from ``from_serial`` on, in the order of serials. Raises StorageError.

        Only what is due after ``due_after_ns``, in wall ns.
        """
        ...

    def fetch(self, position: int, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """Return the frames of ``ids`` at ``position``, as far as they are there."""
        ...

    def drop(self, bucket: int) -> None:
        """A bucket is not needed any more."""
        ...

    def sync(self) -> None:
        """As TopicLog.sync."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class LogStore(Protocol):
    """Gives each topic its log and its deferred messages."""

    def open(self, topic: str, known_end: int = -1, known_sequence: int = 0) -> TopicLog:
        """Return the log of ``topic``, a new one if there is none.

        ``known_end`` and ``known_sequence`` are what the last checkpoint saw, to scan only what came after it.
        Raises StorageError, and StartupError for files of a newer version.
        """
        ...

    def open_deferred(self, topic: str, known_serial: int = 0) -> DeferredStore:
        """Return the deferred messages of ``topic``; serials go on from ``known_serial``. Raises as ``open``."""
        ...
