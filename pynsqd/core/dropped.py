"""What was dropped of a topic's log before all channels had come to it: /topic/empty on a paused topic."""

from collections.abc import Iterable
from typing import NamedTuple

from pynsqd.core.batch import Batch
from pynsqd.core.log import TopicLog


class DroppedRange(NamedTuple):
    """A piece of the log, from a position up to another, with the number of messages before each."""

    position: int
    sequence: int
    end: int
    end_sequence: int


class Dropped:
    """The dropped pieces that a channel still has before it, in order. It reads on behind them."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: Iterable[Iterable[int]] = ()) -> None:
        self.ranges = [DroppedRange(*one) for one in ranges]

    def add(self, position: int, sequence: int, end: int, end_sequence: int) -> None:
        """Drop what is from ``position`` up to ``end``, which is behind all that was dropped before."""
        if self.ranges and self.ranges[-1].end == position:
            position, sequence, _, _ = self.ranges.pop()
        if position < end:
            self.ranges.append(DroppedRange(position, sequence, end, end_sequence))

    def forget(self, position: int) -> None:
        """Nobody reads what is before ``position`` any more."""
        if self.ranges and self.ranges[0].end <= position:
            self.ranges = [one for one in self.ranges if one.end > position]

    def count(self, sequence: int) -> int:
        """Return how many messages from number ``sequence`` on were dropped."""
        return sum(one.end_sequence - one.sequence for one in self.ranges if one.sequence >= sequence)

    def read(self, log: TopicLog, position: int, stop: int, max_bytes: int) -> tuple[list[Batch], int, int]:
        """Read ``log`` without what was dropped; otherwise as TopicLog.read."""
        for one in self.ranges:
            if position < one.position:
                batches, position, sequence = log.read(position, min(stop, one.position), max_bytes)
                if position < one.position:
                    return batches, position, sequence
                return batches, one.end, one.end_sequence
            position = max(position, one.end)
        return log.read(position, stop, max_bytes)
