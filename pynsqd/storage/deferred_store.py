"""The deferred messages of one topic: a segment file for every bucket of due times, in the folder ``deferred``.

Positions are DEFERRED_BIT | bucket << 34 | offset, so one tells its bucket. A bucket has a second file, which goes on
where the first one ends, only after a disk failed under the first.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path
from secrets import randbits
from struct import Struct
from typing import Final

from pynsqd.core.log import DeferredRecord, bucket_at, bucket_of, bucket_position
from pynsqd.storage import files
from pynsqd.storage.descriptors import Descriptors
from pynsqd.storage.format import (
    ANY_SALT,
    DEFERRED,
    SEGMENT_HEADER_SIZE,
    VERSION,
    Record,
    SegmentHeader,
    pack_channel,
    unpack_channel,
)
from pynsqd.storage.quarantine import Quarantine
from pynsqd.storage.segment import Segment, Unsynced, read_header
from pynsqd.wire.encoder import message_id, split_frames

FILE_NAME: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,11}))?\.def")
_DUE: Final = Struct(">Q")
_CHUNK: Final = 1 << 18


class DeferredStore:
    """The deferred messages of one topic. All of it belongs to one thread, but for ``sync``."""

    def __init__(self, folder: Path, descriptors: Descriptors, quarantine: Quarantine, known_serial: int) -> None:
        """Recover what is in ``folder``; see LogStore.open_deferred."""
        self._descriptors = descriptors
        self._folder = folder
        self._quarantine = quarantine
        self._unsynced = Unsynced()
        self._buckets: dict[int, list[Segment]] = {}
        self._last_serial: dict[int, int] = {}  # by bucket; serials only grow in a file
        for segment in self._load():
            self._buckets.setdefault(bucket_at(segment.base), []).append(segment)
        for bucket, segments in self._buckets.items():
            for before, after in pairwise(segments):
                before.size = min(before.size, after.base - before.base)
            self._last_serial[bucket] = _recover(segments)
        self.next_serial = max(known_serial, *(serial + 1 for serial in self._last_serial.values()), 0)

    def _load(self) -> list[Segment]:
        """Look at the head of every file; nothing is touched before all were seen to be of a known version."""
        found = []
        for name, size in files.list_folder(self._folder):
            path = self._folder / name
            match = FILE_NAME.fullmatch(name)
            if match and size >= 0:
                base = bucket_position(int(match[1])) + int(match[2] or 0)
                found.append((base, path, size, read_header(path) if size >= SEGMENT_HEADER_SIZE else None))
            else:
                self._quarantine.report(f"{path} is none of the log's files and is ignored")
        segments = []
        for base, path, size, header in sorted(found):
            if size < SEGMENT_HEADER_SIZE:  # the node died while it created the file
                files.unlink(path)
            elif header and header.base != base:
                self._quarantine.report(f"{path} does not belong where it is and is ignored")
            else:
                segments.append(self._segment(path, header or SegmentHeader(VERSION, ANY_SALT, base, 0), size))
                if not header:
                    self._quarantine.add(segments[-1], base, SEGMENT_HEADER_SIZE, "bad segment header")
        return segments

    def _segment(self, path: Path, header: SegmentHeader, size: int) -> Segment:
        return Segment(path, header, size, self._descriptors, self._quarantine.add)

    # -- append --------------------------------------------------------------------------------------------------

    def append(self, channel: str, due_wall_ns: int, frames: bytes, count: int) -> int:
        """Keep messages for ``channel`` (all if empty) until they are due, and return their position.

        Raises StorageError, and then nothing was kept.
        """
        bucket = bucket_of(due_wall_ns)
        segments = self._buckets.get(bucket)
        segment = segments[-1] if segments else None
        if segment is None or segment.sealed:
            segment = self._new_segment(bucket, segment)
        payload = _DUE.pack(due_wall_ns) + pack_channel(channel) + frames
        if segment.end >= bucket_position(bucket + 1):
            raise files.failure("write", segment.path, OSError(errno.EFBIG, os.strerror(errno.EFBIG)))
        new = not segment.size
        position = segment.append(DEFERRED, count, self.next_serial, payload)
        if new:
            self._buckets.setdefault(bucket, []).append(segment)
        self._last_serial[bucket] = self.next_serial
        self.next_serial += 1
        self._unsynced.add(segment)
        return position

    def _new_segment(self, bucket: int, before: Segment | None) -> Segment:
        try:
            files.make_folder(self._folder)
        except OSError as error:
            raise files.failure("mkdir", self._folder, error) from error
        base = before.end if before else bucket_position(bucket)
        name = f"{bucket}-{base - bucket_position(bucket)}.def" if before else f"{bucket}.def"
        header = SegmentHeader(VERSION, randbits(32), base, self.next_serial)
        return self._segment(self._folder / name, header, 0)

    def sync(self) -> None:
        """Make what was kept before the call survive a loss of power; may run in another thread.

        Raises StorageError.
        """
        self._unsynced.sync()

    # -- read ----------------------------------------------------------------------------------------------------

    def buckets(self) -> list[int]:
        """Return the buckets that have a file, in order."""
        return sorted(self._buckets)

    @property
    def first_serial(self) -> int:
        """Nothing that is kept has a serial below this."""
        return min((segments[0].sequence for segments in self._buckets.values()), default=self.next_serial)

    def sizes(self) -> dict[int, int]:
        """Return the bytes of every bucket."""
        return {bucket: sum(segment.size for segment in segments) for bucket, segments in self._buckets.items()}

    def load(self, bucket: int, from_serial: int = 0, due_after_ns: int = -1) -> Iterator[DeferredRecord]:
        """Yield what a bucket holds from ``from_serial`` on and due after ``due_after_ns``. Raises StorageError.

        They come in the order of serials. Little is read of a bucket with little from there on. What is damaged is set
        aside and passed over. What is kept meanwhile may be left out.
        """
        if self._last_serial.get(bucket, -1) < from_serial:
            return
        for segment in list(self._buckets[bucket]):
            begin = segment.before(from_serial) if from_serial else segment.base
            for run in segment.runs(begin, segment.end, _CHUNK):
                for record in run:
                    if record[4] >= from_serial and _DUE.unpack_from(record[5])[0] > due_after_ns:
                        yield _unpack(record)

    def fetch(self, position: int, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """Return the frames of ``ids`` at ``position``, as far as they are there. Raises StorageError."""
        for segment in self._buckets.get(bucket_at(position), []):
            if segment.base <= position < segment.end:
                for run in segment.runs(position, position + 1, 1):
                    frames = {message_id(frame): frame for frame in split_frames(_unpack(run[0]).frames)}
                    return {one: frames[one] for one in ids if one in frames}
        return {}

    # -- retain --------------------------------------------------------------------------------------------------

    def drop(self, bucket: int) -> None:
        """Remove a bucket. A failure is reported, and the next start finds the bucket again."""
        self._last_serial.pop(bucket, None)
        for segment in self._buckets.pop(bucket, []):
            self._quarantine.retire(segment)

    def close(self) -> None:
        """Close the files."""
        for segments in self._buckets.values():
            for segment in segments:
                segment.close()


def _recover(segments: list[Segment]) -> int:
    """Cut off what was torn in the files of a bucket; return the last serial in them, -1 if there is none."""
    last = segments[-1]
    if not last.sealed:
        last.open_flags = files.APPEND
        last.recover()
    serial = -1
    for segment in segments:
        if segment.sealed:
            # Without its header a file is not read from the end: what a client sent could pass for the last record.
            for run in segment.runs(segment.base, segment.end, _CHUNK):
                serial = max(serial, run[-1][4])
        else:
            found = segment.last_record()
            serial = max(serial, found[1].sequence if found else segment.sequence - 1)
    return serial


def _unpack(record: Record) -> DeferredRecord:
    position, _, _, _, serial, payload = record
    (due_wall_ns,) = _DUE.unpack_from(payload)
    channel, frames = unpack_channel(payload, _DUE.size)
    ids = [message_id(frame) for frame in split_frames(frames)]
    return DeferredRecord(serial, channel, due_wall_ns, position, ids, frames)
