"""What is read of a topic's log: the messages for all channels, and what channels owe again."""

from bisect import bisect_right
from collections.abc import Collection, Iterator
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Final

from pynsqd.core.batch import Batch
from pynsqd.storage.format import (
    FOR_ALL,
    OWED,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    Record,
    plain_messages,
    unpack_channel,
)
from pynsqd.storage.quarantine import Quarantine
from pynsqd.storage.segment import Segment
from pynsqd.wire.encoder import message_id, split_frames

_ALONE: Final = 1 << 14  # a record of so many bytes is a Batch of its own, smaller ones are joined
_JOINED: Final = 1 << 16  # ... up to so many bytes
_FETCH: Final = 1 << 20  # how far behind a position its messages are looked for
_CHUNK: Final = 1 << 16  # what is read at once when little is expected


class LogReader:
    """The segments of a log, in order, and what can be read of them; ``TopicLog`` is the one that writes."""

    def __init__(self, folder: Path, quarantine: Quarantine) -> None:
        self._folder = folder
        self._quarantine = quarantine
        self._segments: list[Segment] = []
        self.end = 0  # the position behind the last record
        self.end_sequence = 0  # how many messages for all channels were ever appended

    @property
    def start(self) -> int:
        """The position of the oldest record that is kept, or the end."""
        return self._segments[0].base + SEGMENT_HEADER_SIZE if self._segments else self.end

    @property
    def damaged_records(self) -> int:
        """Damaged places met since the log was opened."""
        return self._quarantine.records

    @property
    def damaged_bytes(self) -> int:
        """The bytes of those."""
        return self._quarantine.bytes

    def read(self, position: int, stop: int, max_bytes: int) -> tuple[list[Batch], int, int]:
        """Return the batches from ``position`` up to ``stop``, the next position, and the sequence number there.

        About ``max_bytes`` of the log are read at once: at least one record, if there is one. Small records are
        joined. What is damaged is set aside, counted and passed over. With ``stop`` at ``position`` it tells the
        sequence number.

        Raises:
            StorageError: a segment cannot be opened now; the same call may work later.
        """
        position = max(position, self.start)
        stop = min(stop, self.end)
        batches: list[Batch] = []
        ids: list[bytes] = []
        joined: list[bytes] = []
        first = full = large = 0
        next_position = next_sequence = -1
        for run in self._runs(position, stop, max_bytes):
            for at, kind, flags, count, sequence, payload in run:
                length = len(payload)
                if sequence != next_sequence:
                    full = 0  # where something is damaged a batch ends: who skips a part of one counts on
                if kind not in FOR_ALL:
                    next_position = at + RECORD_HEADER_SIZE + length
                    next_sequence = sequence
                    continue
                try:
                    its_ids, frames = plain_messages(kind, flags, count, payload)
                except ValueError as error:
                    self._pass_over(at, payload, error)
                    continue
                next_position = at + RECORD_HEADER_SIZE + length
                next_sequence = sequence + count
                if joined and (length >= _ALONE or next_position > full):
                    batches.append(Batch(ids, b"".join(joined), first))
                    ids, joined = [], []
                if length >= _ALONE:
                    batches.append(Batch(its_ids, frames, at))
                    large += len(frames)
                    if large >= max_bytes:  # of short messages the frames are several times as long
                        break
                    continue
                if not joined:
                    first = at
                    full = at + _JOINED
                ids += its_ids
                joined.append(frames)
            if batches or joined:
                break
        else:
            if next_position < stop:  # it ended with damage, or nothing was read
                next_position = max(position, stop)
                next_sequence = self._sequence_at(next_position)
        if joined:
            batches.append(Batch(ids, b"".join(joined), first))
        return batches, next_position, next_sequence

    def _runs(self, position: int, stop: int, chunk: int) -> Iterator[list[Record]]:
        """Yield the records that begin from ``position`` up to ``stop``, some at a time."""
        index = max(0, bisect_right(self._segments, position, key=attrgetter("base")) - 1)
        for segment in islice(self._segments, index, None):
            if segment.base >= stop:
                return
            if segment.base > position:
                self._quarantine.miss(self._folder, position, segment.base - position)
            yield from segment.runs(position, stop, chunk)
            position = segment.end

    def _pass_over(self, position: int, payload: bytes, why: ValueError) -> None:
        """Take a record as damaged whose checksum is right, but not its messages."""
        index = bisect_right(self._segments, position, key=attrgetter("base")) - 1
        self._quarantine.add(self._segments[index], position, RECORD_HEADER_SIZE + len(payload), str(why))

    def _sequence_at(self, position: int) -> int:
        for run in self._runs(position, self.end, _CHUNK):
            return run[0][4]
        return self.end_sequence

    def fetch(self, position: int, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """Return the frames of the messages ``ids``, looked for from ``position`` on, up to 1 MiB behind it.

        What is not found is absent. Raises StorageError as ``read`` does.
        """
        wanted = set(ids)
        found: dict[bytes, bytes] = {}
        for run in self._runs(max(position, self.start), min(position + _FETCH, self.end), _CHUNK):
            for record in run:
                for frame in split_frames(self._frames_of(record)):
                    if message_id(frame) in wanted:
                        wanted.discard(message_id(frame))
                        found[message_id(frame)] = frame
                if not wanted:  # mostly it is the first record that has them all
                    return found
        return found

    def _frames_of(self, record: Record) -> bytes:
        """Return the frames of the messages in a record, for whomever they are; none if it is damaged."""
        position, kind, flags, count, _, payload = record
        if kind == OWED:
            return unpack_channel(payload)[1]
        try:
            return plain_messages(kind, flags, count, payload)[1]
        except ValueError as error:
            self._pass_over(position, payload, error)
            return b""

    def owed_since(self, position: int) -> Iterator[tuple[str, Batch]]:
        """Yield (channel, batch) for every ``append_owed`` from ``position`` on. Raises StorageError as ``read``."""
        for run in self._runs(max(position, self.start), self.end, _CHUNK):
            for at, kind, _, _, _, payload in run:
                if kind == OWED:
                    channel, frames = unpack_channel(payload)
                    ids = [message_id(frame) for frame in split_frames(frames)]
                    yield channel, Batch(ids, frames, at, fresh=False)
