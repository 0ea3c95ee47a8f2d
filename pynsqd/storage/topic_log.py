"""The log of one topic: segment files that follow each other."""

import re
from itertools import pairwise
from pathlib import Path
from secrets import randbits
from threading import Lock
from time import monotonic_ns
from typing import Final

from pynsqd.core.batch import Published
from pynsqd.core.log import DEFERRED_BIT
from pynsqd.core.published import HEAD_SIZE
from pynsqd.storage import files
from pynsqd.storage.descriptors import Descriptors
from pynsqd.storage.format import (
    ANY_SALT,
    BATCH,
    OWED,
    PUBLISHED,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    VERSION,
    SegmentHeader,
    pack_channel,
)
from pynsqd.storage.log_reader import LogReader
from pynsqd.storage.quarantine import Quarantine
from pynsqd.storage.segment import Segment, Unsynced, read_header
from pynsqd.storage.timings import Timings
from pynsqd.wire.errors import StorageError

BAD: Final = "bad"
DEFERRED: Final = "deferred"
PROBE: Final = "probe"
_SEGMENT_SUFFIX: Final = ".seg"
_SEGMENT_NAME: Final = re.compile(r"([0-9]{20})\.seg")
_OURS: Final = (_SEGMENT_SUFFIX, ".def", ".bad", PROBE)

_PUBLISHED_HEAD: Final = RECORD_HEADER_SIZE + HEAD_SIZE
_TIMED_ONE_IN: Final = 8  # appends: to time each takes 0.4 µs, one in eight adds 0.1 to each
_KEEP: Final = 1 << 20  # an open segment smaller than this is not worth being replaced when all of it was released


class TopicLog(LogReader):
    """The log of one topic. All of it belongs to one thread, but for ``sync``.

    A position is a logical byte offset: it only grows, and is never used again for anything else.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes_per_file: int,
        descriptors: Descriptors,
        quarantine: Quarantine,
        timings: Timings,
        *,
        folders: files.NewFolders,
        known_end: int,
        known_sequence: int,
    ) -> None:
        """Recover the log in ``folder``; see LogStore.open."""
        super().__init__(folder, quarantine)
        self._descriptors = descriptors
        self._folders = folders
        self._max_bytes = max_bytes_per_file
        self._timings = timings
        self._until_timed = 0  # appends
        self._unsynced = Unsynced()
        self._stage: Segment | None = None  # the segment that what is staged is written to
        self.staged: list[Published] = []
        self._deleted = False
        self._probing = Lock()
        self._segments = self._load()
        self._open = self._segments[-1] if self._segments else None
        if self._open and not self._open.sealed:
            self._open.open_flags = files.APPEND
            self._open.recover()
            if self._open.version < VERSION:
                self._open.sealed = True  # an old node could not read what would be appended
        self.end = self._segments[-1].end if self._segments else 0
        sequences = (segment.end_sequence() for segment in reversed(self._segments))
        self.end_sequence = max(next((one for one in sequences if one is not None), 0), known_sequence)
        if known_end > self.end:
            self._skip_to(known_end)

    def _load(self) -> list[Segment]:
        """Look at the head of every segment file; nothing is touched before all were seen to be of a known version."""
        found = []
        for name, size in files.list_folder(self._folder):
            base = segment_base(name)
            if base >= 0 and size >= 0:
                path = self._folder / name
                found.append((path, base, size, read_header(path) if size >= SEGMENT_HEADER_SIZE else None))
            elif name not in (BAD, DEFERRED, PROBE):
                self._quarantine.report(f"{self._folder / name} is none of the log's files and is ignored")
        segments: list[Segment] = []
        for path, base, size, header in found:
            misplaced = header.base != base if header else bool(segments) and segments[-1].end > base
            if size < SEGMENT_HEADER_SIZE:  # the node died while it created the file
                files.unlink(path)
            elif misplaced:
                self._quarantine.report(f"{path} does not belong where it is and is ignored")
            else:
                segments.append(self._segment(path, header or SegmentHeader(VERSION, ANY_SALT, base, 0), size))
                if not header:
                    self._quarantine.add(segments[-1], base, SEGMENT_HEADER_SIZE, "bad segment header")
        for before, after in pairwise(segments):
            before.size = min(before.size, after.base - before.base)  # the rest was never appended, see Segment._cut
        return segments

    def _segment(self, path: Path, header: SegmentHeader, size: int) -> Segment:
        return Segment(path, header, size, self._descriptors, self._quarantine.add)

    def _skip_to(self, end: int) -> None:
        """Leave a gap: what was appended here has been lost, and no cursor may find other messages in its place."""
        if self._segments:
            self._quarantine.miss(self._folder, self.end, end - self.end)
        self._open = None
        self.end = end

    # -- append --------------------------------------------------------------------------------------------------

    def append(self, batch: Published) -> None:
        """Append a batch that was published, and what is staged before it, and set its position.

        Raises StorageError, and then nothing was appended, and nothing is staged any more.
        """
        if self.staged:
            self._append_staged(batch)
        else:
            batch.position = self._append(PUBLISHED, batch.count, self.end_sequence, batch.messages, batch.head)
            self.end_sequence += batch.count

    def _append_staged(self, batch: Published) -> None:
        sequence = self.end_sequence + sum(one.count for one in self.staged)
        batch.position = self._append(PUBLISHED, batch.count, sequence, batch.messages, batch.head)
        self.end_sequence = sequence + batch.count
        self.staged = []
        self._stage = None

    def stage(self, batches: list[Published]) -> None:
        """Write batches that belong together with the one that is appended next, and set their positions.

        Until that is appended nobody reads them, and a crash or a failure leaves all of them or none. Anything else
        that is appended takes them back: ``staged`` is another list then. Raises StorageError, and then nothing is
        staged any more.
        """
        sequence = self.end_sequence + sum(one.count for one in self.staged)
        try:
            if self._stage is None:
                size = _PUBLISHED_HEAD + len(batches[0].messages)
                self._stage = self._open if self._open and self._has_room(self._open, size) else self._roll()
            position = self._stage.stage(PUBLISHED, sequence, [(one.count, one.head, one.messages) for one in batches])
        except StorageError:
            self.unstage()
            raise
        for one in batches:
            one.position = position
            position += _PUBLISHED_HEAD + len(one.messages)
        self.staged += batches

    def keeps(self, staged: list[Published]) -> bool:
        """Tell whether ``staged``, which was once ``self.staged``, still is, and may be followed by an append."""
        return staged is self.staged and self._stage is not None and not self._stage.sealed

    def unstage(self) -> None:
        """Take back what is staged."""
        self.staged = []
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.unstage()

    def append_frames(self, frames: bytes, count: int) -> None:
        """Append messages that were published elsewhere, at any times and with any ids. Raises StorageError."""
        self._append(BATCH, count, self.end_sequence, frames)
        self.end_sequence += count

    def append_owed(self, channel: str, frames: bytes, count: int) -> int:
        """Append messages that only ``channel`` still owes and return their position. Raises StorageError."""
        if self.staged:
            self.unstage()
        return self._append(OWED, count, self.end_sequence, frames, pack_channel(channel))

    def _append(self, kind: int, count: int, sequence: int, payload: bytes, before: bytes = b"") -> int:
        if self._until_timed:
            self._until_timed -= 1
            began_ns = 0
        else:
            self._until_timed = _TIMED_ONE_IN - 1
            began_ns = monotonic_ns()
        segment = self._stage or self._open
        if segment is None or (
            segment is not self._stage and not self._has_room(segment, RECORD_HEADER_SIZE + len(before) + len(payload))
        ):
            segment = self._roll()
        try:
            position = segment.append(kind, count, sequence, payload, before)
        except StorageError:
            self.unstage()
            raise
        if segment is not self._open:
            self._segments.append(segment)
            self._open = segment
        self.end = segment.base + segment.size
        if not segment.unsynced:
            self._unsynced.add(segment)
        if began_ns:
            self._timings.appends.observe(monotonic_ns() - began_ns)
        return position

    def _has_room(self, segment: Segment, size: int) -> bool:
        """Tell whether ``size`` bytes more may be appended to it; anything may where there is nothing yet."""
        return not segment.sealed and (segment.size + size <= self._max_bytes or segment.size <= SEGMENT_HEADER_SIZE)

    def _roll(self) -> Segment:
        """Return a new segment; it is the log's once something was appended to it."""
        self._open = None  # if this fails the next one is to begin at the same position
        try:
            self._folders.make(self._folder)
        except OSError as error:
            raise files.failure("mkdir", self._folder, error) from error
        header = SegmentHeader(VERSION, randbits(32), self.end, self.end_sequence)
        return self._segment(self._folder / f"{self.end:020d}{_SEGMENT_SUFFIX}", header, 0)

    def sync(self) -> None:
        """Make everything that was appended before the call survive a loss of power. Raises StorageError.

        It may run in another thread, one at a time. After a failure the next append begins a new segment.
        """
        try:
            self._folders.sync()
        except OSError as error:
            raise files.failure("sync", self._folder.parent, error) from error
        if self._unsynced:
            began_ns = monotonic_ns()
            self._unsynced.sync()
            self._timings.syncs.observe(monotonic_ns() - began_ns)

    # -- retain --------------------------------------------------------------------------------------------------

    def live_segments(self) -> list[tuple[int, int]]:
        """Return position and bytes of each segment."""
        return [(segment.base, segment.size) for segment in self._segments]

    def release(self, position: int) -> None:
        """Remove the segments that lie wholly before ``position``.

        The open one goes too, unless it is small: then a new one would cost more than it frees.
        """
        while self._segments and self._segments[0].end <= position:
            segment = self._segments[0]
            if segment is self._stage:
                return
            if segment is self._open and not segment.sealed and segment.size < min(_KEEP, self._max_bytes // 2):
                return
            if not self._quarantine.retire(segment):
                return
            if segment is self._open:
                self._open = None
            del self._segments[0]

    def probe(self) -> None:
        """Try whether the disk takes what is written; may run in another thread. Raises StorageError."""
        path = self._folder / PROBE
        with self._probing:
            if self._deleted:
                return
            try:
                files.make_folder(self._folder)
                files.probe(path)
            except OSError as error:
                raise files.failure("write", path, error) from error

    def close(self) -> None:
        """Close the files."""
        self.unstage()
        for segment in self._segments:
            segment.close()

    def delete(self) -> None:
        """Remove all files of the topic, deferred messages and what was set aside too."""
        self.close()
        self._segments.clear()
        self._open = None
        with self._probing:  # or a probe would make the folder anew
            self._deleted = True
            self._quarantine.remove(self._folder)


def is_ours(name: str, size: int) -> bool:
    """Tell whether a name in the folder of a topic, or in one of its folders, is the log's; size -1 is a folder."""
    return name in (BAD, DEFERRED) if size < 0 else name.endswith(_OURS)


def segment_base(name: str) -> int:
    """Return the position in the name of a segment file; -1 if it is no such name."""
    match = _SEGMENT_NAME.fullmatch(name)
    base = int(match[1]) if match else -1
    return base if base < DEFERRED_BIT else -1
