"""The files of one topic, walked without a change: what log verify, repair and dump have in common."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from pynsqd.core.log import DEFERRED_BIT, bucket_position
from pynsqd.storage import files
from pynsqd.storage.descriptors import Descriptors
from pynsqd.storage.format import (
    ANY_SALT,
    DEFERRED,
    FOR_ALL,
    MORE,
    OWED,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    VERSION,
    Record,
    SegmentHeader,
    plain_messages,
    unpack_channel,
    unpack_record_header,
)
from pynsqd.storage.segment import Segment, read_header
from pynsqd.storage.topic_log import BAD, PROBE
from pynsqd.storage.topic_log import DEFERRED as DEFERRED_FOLDER

_SEGMENT_NAME: Final = re.compile(r"([0-9]{20})\.seg")
_DEFERRED_NAME: Final = re.compile(r"([0-9]{1,10})\.def")
_CHUNK: Final = 1 << 20
DUE_SIZE: Final = 8  # before the channel in the payload of a DEFERRED record
# What stands for the channel in a record that repair put in the place of damage: no channel can be called so.
NOBODY: Final = " "

Kind = Literal["header", "missing", "record", "sequence", "stub", "tail"]


@dataclass(slots=True)
class Damage:
    """One place where the files are not as the node wrote them.

    ``kind``: "stub" is a file that ends within its header, "header" a damaged one, "tail" an append that was cut
    short, "record" anything else inside a file, "missing" bytes that are in no file, "sequence" a number out of order.
    """

    kind: Kind
    path: Path
    position: int
    bytes: int
    reason: str
    sequence: int = -1  # what the number of messages is behind it, as far as it is known


@dataclass(slots=True)
class File:
    """One file of a topic, with what it was found to hold."""

    segment: Segment
    header: SegmentHeader | None

    @property
    def salt(self) -> int:
        """What stands in each of its records."""
        return self.header.salt if self.header else ANY_SALT


@dataclass(slots=True)
class Counts:
    """What the files of one sort hold. ``owed`` are messages that were appended again for one channel."""

    files: int = 0
    records: int = 0
    messages: int = 0
    owed: int = 0
    bytes: int = 0


class TopicFiles:
    """The files of the topic with folder ``folder``; ``live``: a node is at work on them."""

    def __init__(self, folder: Path, *, live: bool) -> None:
        """Find the files. Raises StartupError for one of a later release, StorageError, OSError."""
        self.damage: list[Damage] = []
        self.folder = folder
        self.notes: list[str] = []
        self.log_counts = Counts()
        self.deferred_counts = Counts()
        self._descriptors = Descriptors()
        self._live = live
        self._pending: list[Damage] = []
        self._unended: list[tuple[int, int]] = []  # position and messages of records that belong with one to come
        self.log = self._find(folder, _SEGMENT_NAME, int)
        for before, after in pairwise(self.log):  # what is beyond the begin of the next was never appended
            before.segment.size = min(before.segment.size, after.segment.base - before.segment.base)
        self.deferred = self._find(folder / DEFERRED_FOLDER, _DEFERRED_NAME, lambda name: bucket_position(int(name)))

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.segment.size for file in self.log + self.deferred)

    @property
    def end(self) -> int:
        """The position behind the log."""
        return self.log[-1].segment.end if self.log else 0

    def _find(self, folder: Path, pattern: re.Pattern[str], base_of: Callable[[str], int]) -> list[File]:
        found = []
        for name, size in files.list_folder(folder):
            match = pattern.fullmatch(name)
            path = folder / name
            if size < 0 or match is None:
                if name not in (BAD, DEFERRED_FOLDER, PROBE):
                    self.notes.append(f"{path} is none of the log's files")
                continue
            base = base_of(match[1])
            if size < SEGMENT_HEADER_SIZE:
                if not self._live:
                    self._report(Damage("stub", path, base, size, "the file ends within its header"))
                continue
            header = read_header(path)
            if header and header.base != base:
                self.notes.append(f"{path} does not belong where it is")
                continue
            file = File(self._segment(path, header or SegmentHeader(VERSION, ANY_SALT, base, 0), size), header)
            if not header:
                self._report(Damage("header", path, base, SEGMENT_HEADER_SIZE, "bad segment header"))
            found.append(file)
        return sorted(found, key=lambda file: file.segment.base)

    def _segment(self, path: Path, header: SegmentHeader, size: int) -> Segment:
        return Segment(path, header, size, self._descriptors, self._on_damage)

    def _report(self, damage: Damage) -> None:
        self.damage.append(damage)

    def _on_damage(self, segment: Segment, position: int, size: int, why: str) -> None:
        if not segment.path.exists():
            if not self._live:
                self._report(Damage("missing", segment.path, position, size, why))
            return
        # Any salt will do: the checksum of a header begins with its place.
        header = unpack_record_header(segment.read(position, RECORD_HEADER_SIZE), 0, position, ANY_SALT)
        whole = RECORD_HEADER_SIZE + (header.length if header else 0)
        tail = whole > size
        if tail and self._live and segment.end == self.end:
            return  # it is being written
        damage = Damage("tail" if tail else "record", segment.path, position, size, why)
        if header:
            damage.sequence = header.sequence + (header.messages if header.kind in FOR_ALL else 0)
        else:
            self._pending.append(damage)
        self._report(damage)

    # -- walk ----------------------------------------------------------------------------------------------------

    def walk(self, advance: Callable[[int], None]) -> Iterator[list[Record]]:
        """Yield all records, some at a time, those of the log first; ``damage`` and the counts are true at the end.

        ``advance`` hears how many bytes are done. Raises StorageError.
        """
        expected = -1  # the number of messages before the next record, if it is known
        for index, file in enumerate(self.log):
            segment = file.segment
            self._unended.clear()
            if index and self.log[index - 1].segment.end < segment.base:
                begin = self.log[index - 1].segment.end
                self._report(Damage("missing", self.folder, begin, segment.base - begin, "in no file"))
                expected = -1
            if file.header:
                self._settle(segment.sequence)
                known = -1 if self._broke(segment.base) else expected
                expected = self._continue(known, segment.sequence, segment, segment.base)
            self.log_counts.files += 1
            self.log_counts.bytes += segment.size
            for run in self._runs(segment, advance):
                self._settle(run[0][4])
                expected = self._count_run(segment, run, -1 if self._broke(run[0][0]) else expected)
                yield run
        self._settle(max(expected, 0))
        if self._unended:
            self._leave_out_unended()
        for file in self.deferred:
            yield from self._walk_deferred(file.segment, advance)

    def _runs(self, segment: Segment, advance: Callable[[int], None]) -> Iterator[list[Record]]:
        done = segment.base
        for run in segment.runs(segment.base, segment.end, _CHUNK):
            yield from self._sound(segment, run)
            behind = run[-1][0] + RECORD_HEADER_SIZE + len(run[-1][5])
            advance(behind - done)
            done = behind
        advance(segment.end - done)

    def _sound(self, segment: Segment, run: list[Record]) -> Iterator[list[Record]]:
        """Yield what lies between records whose checksum is right, but not their messages; those are damage."""
        begin = 0
        for index, (position, kind, flags, count, _, payload) in enumerate(run):
            if kind not in FOR_ALL:
                continue
            try:
                plain_messages(kind, flags, count, payload)
            except ValueError as error:
                if begin < index:
                    yield run[begin:index]
                begin = index + 1
                self._on_damage(segment, position, RECORD_HEADER_SIZE + len(payload), str(error))
        if begin < len(run):
            yield run[begin:]

    def _broke(self, position: int) -> bool:
        """Tell whether there is damage right before ``position``."""
        return bool(self.damage) and self.damage[-1].position + self.damage[-1].bytes == position

    def _settle(self, sequence: int) -> None:
        """What comes behind the last damage is number ``sequence``."""
        for damage in self._pending:
            damage.sequence = sequence
        self._pending.clear()

    def _continue(self, expected: int, sequence: int, segment: Segment, position: int) -> int:
        if expected not in (-1, sequence):
            reason = f"message {expected} was to come, it is {sequence}"
            self._report(Damage("sequence", segment.path, position, 0, reason))
        return sequence

    def _count_run(self, segment: Segment, run: list[Record], expected: int) -> int:
        counts = self.log_counts
        counts.records += len(run)
        for record in run:
            position, kind, flags, count, sequence, _ = record
            if flags & MORE:
                self._unended.append((position, count))
            else:
                self._unended.clear()
            if is_filler(record):
                expected = -1
                continue
            expected = self._continue(expected, sequence, segment, position)
            if kind in FOR_ALL:
                counts.messages += count
                expected += count
            else:
                counts.owed += count
        return expected

    def _leave_out_unended(self) -> None:
        """The last records are of an MPUB that was not written to its end: a start cuts them off.

        Not if there is damage behind them: then the end may have been there, and a start serves them.
        """
        begin = self._unended[0][0]
        segment = self.log[-1].segment
        behind = [one for one in self.damage if one.path == segment.path and one.position > begin]
        if any(one.kind != "tail" for one in behind):
            return
        self.log_counts.records -= len(self._unended)
        self.log_counts.messages -= sum(count for _, count in self._unended)
        if not self._live:
            self.damage = [one for one in self.damage if one not in behind]
            reason = "the MPUB is not there to its end"
            self._report(Damage("tail", segment.path, begin, segment.end - begin, reason))

    def _walk_deferred(self, segment: Segment, advance: Callable[[int], None]) -> Iterator[list[Record]]:
        counts = self.deferred_counts
        counts.files += 1
        counts.bytes += segment.size
        last = segment.sequence - 1
        for run in self._runs(segment, advance):
            self._settle(max(run[0][4] - 1, 0))
            counts.records += len(run)
            for record in run:
                position, _, _, count, serial, _ = record
                if not is_filler(record):
                    counts.messages += count
                    if serial <= last:
                        reason = f"serial {serial} comes after {last}"
                        self._report(Damage("sequence", segment.path, position, 0, reason))
                last = max(last, serial)
            yield run
        self._settle(max(last, 0))

    def close(self) -> None:
        """Close the files."""
        for file in self.log + self.deferred:
            file.segment.close()


def is_filler(record: Record) -> bool:
    """Tell whether repair put the record in the place of damage."""
    position, kind, _, count, _, payload = record
    if kind not in (OWED, DEFERRED) or count:
        return False
    return unpack_channel(payload, DUE_SIZE if position & DEFERRED_BIT else 0)[0].startswith(NOBODY)
