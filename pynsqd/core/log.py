"""The seam to the storage: what the core asks of a topic's log."""

from typing import Protocol

from pynsqd.core.batch import Batch


class TopicLog(Protocol):
    """The log of one topic. ``append`` returns when the batch is as safe as an OK promises."""

    def append(self, batch: Batch) -> None:
        """Append a batch. Raises StorageError, and then nothing of it was appended."""
        ...


class LogStore(Protocol):
    """Gives each topic its log."""

    def open(self, topic: str) -> TopicLog:
        """Return the log of ``topic``, a new one if there is none. Raises StorageError."""
        ...


class MemoryLog:
    """The log of a topic whose messages are only in memory."""

    def append(self, batch: Batch) -> None:
        """Keep nothing: the channels hold the batch."""


class MemoryLogs:
    """Memory only, for every topic."""

    def open(self, topic: str) -> MemoryLog:
        """Return a log that keeps nothing."""
        return MemoryLog()
