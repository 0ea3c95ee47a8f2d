"""One segment file: append, read, recover. Whoever reads a segment does it here, damage and all."""

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pynsqd.storage import files
from pynsqd.storage.descriptors import Descriptors
from pynsqd.storage.format import (
    ANY_SALT,
    FOR_ALL,
    MORE,
    RECORD_HEADER_SIZE,
    RECORD_MAGIC,
    SEGMENT_HEADER_SIZE,
    VERSION,
    Record,
    RecordHeader,
    SegmentHeader,
    checksum,
    pack_record_header,
    pack_segment_header,
    parse,
    unpack_record_header,
    unpack_segment_header,
)
from pynsqd.wire.errors import StartupError, StorageError

_BLOCK: Final = 4096  # the least that is given up where the disk cannot read
_TAIL: Final = 1 << 16  # where the last record is looked for first
_SCAN: Final = 1 << 20


class Segment:
    """One segment file. A position is that of a byte in the log; the file holds those from ``base`` on."""

    __slots__ = (
        "_descriptors",
        "_on_damage",
        "_salt",
        "_staged",
        "_unnamed",
        "base",
        "open_flags",
        "path",
        "sealed",
        "sequence",
        "size",
        "sync_failed",
        "unreadable",
        "unsynced",
        "version",
    )

    def __init__(
        self,
        path: Path,
        header: SegmentHeader,
        size: int,
        descriptors: Descriptors,
        on_damage: "Callable[[Segment, int, int, str], None]",
    ) -> None:
        """Describe a file of ``size`` bytes, 0 for one that the first append is to create.

        ``on_damage`` hears of every damaged place that is met: segment, position, bytes, what is wrong.
        """
        self._descriptors = descriptors
        self._on_damage = on_damage
        self._salt = header.salt
        self._staged = 0  # bytes behind the end that belong to what is appended next
        self._unnamed = True  # whether its name in the folder survives a loss of power is not known
        self.base = header.base
        self.open_flags = files.READ if size else files.CREATE
        self.path = path
        self.sealed = header.salt == ANY_SALT  # nothing more may be appended
        self.sequence = header.sequence
        self.size = size
        self.sync_failed = False
        self.unreadable = False  # the disk could not read some of it
        self.unsynced = False
        self.version = header.version

    @property
    def end(self) -> int:
        """The position behind the last byte."""
        return self.base + self.size

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._descriptors.close(self)

    # -- append --------------------------------------------------------------------------------------------------

    def append(self, kind: int, count: int, sequence: int, payload: bytes, before: bytes = b"") -> int:
        """Append a record of ``count`` messages, and what is staged before it; return its position.

        ``before`` is the first part of the payload, so that nobody has to join the two. Raises StorageError, and then
        nothing was appended, and nothing is staged any more.
        """
        size = self.size + self._staged
        begin = [] if size else [self._header()]
        size = size or SEGMENT_HEADER_SIZE
        position = self.base + size
        head = pack_record_header(kind, 0, count, sequence, payload, self._salt, position, before)
        self._write([*begin, head, before, payload])
        self.size = size + RECORD_HEADER_SIZE + len(before) + len(payload)
        self._staged = 0
        return position

    def stage(self, kind: int, sequence: int, records: Sequence[tuple[int, bytes, bytes]]) -> int:
        """Write records that belong together with the one that is appended next.

        ``records`` are (messages, ``before``, ``payload``), the latter as for ``append``. Until that is there they do
        not count: a crash or a failure leaves all of them or none. Returns the position of the first. Raises
        StorageError, and then nothing is staged any more.
        """
        size = self.size + self._staged
        parts = [] if size else [self._header()]
        first = position = self.base + (size or SEGMENT_HEADER_SIZE)
        for count, before, payload in records:
            head = pack_record_header(kind, MORE, count, sequence, payload, self._salt, position, before)
            parts += head, before, payload
            sequence += count
            position += RECORD_HEADER_SIZE + len(before) + len(payload)
        self._write(parts)
        self._staged = position - self.base - self.size
        return first

    def unstage(self) -> None:
        """Take back what is staged."""
        if self._staged:
            try:
                self._take_back(self._descriptors.of(self))
            except OSError:
                self.sealed = True

    def _header(self) -> bytes:
        return pack_segment_header(self._salt, self.base, self.sequence)

    def _write(self, parts: list[bytes]) -> None:
        try:
            descriptor = self._descriptors.of(self)
        except OSError as error:
            self.sealed = True
            raise files.failure("open", self.path, error) from error
        try:
            files.write_all(descriptor, parts)
        except OSError as error:
            self._take_back(descriptor)
            raise files.failure("write", self.path, error) from error
        self.open_flags = files.APPEND

    def _take_back(self, descriptor: int) -> None:
        """Undo a write that failed half-way, or was staged; if that fails too, never append here again."""
        self._staged = 0
        try:
            if self.size:
                files.truncate(descriptor, self.size)
            else:
                self.open_flags = files.CREATE
                self.close()
                files.unlink(self.path)
        except OSError:
            self.sealed = True

    def sync(self) -> None:
        """Make what was appended survive a loss of power. Raises OSError.

        It opens the file for itself, so it may run in another thread; the first to sync after the system failed to
        write something back hears of it, whatever descriptor wrote.
        """
        descriptor = files.open_file(self.path, files.READ)
        try:
            files.fdatasync(descriptor)
        finally:
            files.close(descriptor)
        if self._unnamed:
            files.sync_folder(self.path.parent)
            self._unnamed = False

    # -- read ----------------------------------------------------------------------------------------------------

    def read(self, position: int, size: int) -> bytes:
        """Return ``size`` bytes from ``position``; zeros where the disk cannot read or the file is shorter.

        Raises FileNotFoundError if the file is gone, StorageError if it cannot be opened.
        """
        try:
            descriptor = self._descriptors.of(self)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise files.failure("open", self.path, error) from error
        offset = position - self.base
        try:
            data = files.pread(descriptor, size, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise files.failure("read", self.path, error) from error
            data = self._read_blocks(descriptor, offset, size)
        return data if len(data) == size else data.ljust(size, b"\0")

    def _read_blocks(self, descriptor: int, offset: int, size: int) -> bytes:
        self.unreadable = True
        blocks = []
        end = offset + size
        while offset < end:
            wanted = min(_BLOCK - offset % _BLOCK, end - offset)
            try:
                block = files.pread(descriptor, wanted, offset)
            except OSError:
                block = b""
            blocks.append(block.ljust(wanted, b"\0"))
            offset += wanted
        return b"".join(blocks)

    def runs(self, position: int, stop: int, chunk: int) -> Iterator[list[Record]]:
        """Yield the whole records that begin from ``position`` up to ``stop``, some at a time.

        About ``chunk`` bytes are read at once. What is damaged is reported and passed over. Raises StorageError.
        """
        try:
            yield from self._runs(max(position, self.base + SEGMENT_HEADER_SIZE), min(stop, self.end), chunk)
        except FileNotFoundError:
            self._on_damage(self, position, self.end - position, "the file is gone")

    def _runs(self, position: int, stop: int, chunk: int) -> Iterator[list[Record]]:
        needed = 0
        while position < stop:
            size = max(needed, min(chunk, stop - position))
            records, halt = parse(self.read(position, min(size, self.end - position)), position, self._salt)
            if records:
                yield records
            position = halt.position
            needed = 0
            if halt.why == "short":
                left = self.end - position
                if halt.size > left > 0:
                    self._on_damage(self, position, left, "the record is cut short")
                    return
                needed = halt.size
            elif halt.why == "header":
                found = self._next_record(position + 1)
                self._on_damage(self, position, found - position, "no record header")
                position = found
            else:
                self._on_damage(self, position, halt.size, "wrong checksum")
                position += halt.size

    def _next_record(self, position: int) -> int:
        """Return the position of the first record header from ``position`` on, or the end."""
        while position < self.end:
            data = self.read(position, min(_SCAN, self.end - position))
            at = data.find(RECORD_MAGIC)
            while at >= 0:
                if unpack_record_header(data, at, position + at, self._salt):
                    return position + at
                at = data.find(RECORD_MAGIC, at + 1)
            if position + len(data) == self.end:
                break
            position += len(data) - RECORD_HEADER_SIZE + 1
        return self.end

    # -- recover -------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Cut off what an append that never ended left behind. Raises StorageError.

        Only that: a record whose bytes are all there, but wrong, is damage; it stays where it is and is reported.
        """
        found = self.last_record()
        while found:
            position, header = found
            whole = position + RECORD_HEADER_SIZE + header.length
            left = self.end - whole
            if left >= 0 and not (header.flags & MORE and left < RECORD_HEADER_SIZE):
                break
            self._cut(position)
            found = self.last_record()
        else:
            whole = self.base + SEGMENT_HEADER_SIZE
            left = self.end - whole
        if found and checksum(self.read(whole - header.length, header.length)) != header.payload_crc:
            self._on_damage(self, position, whole - position, "wrong checksum")
        if left >= RECORD_HEADER_SIZE:
            self._on_damage(self, whole, left, "no record header")
        elif left:
            self._cut(whole)

    def _cut(self, end: int) -> None:
        self.size = end - self.base
        try:
            files.truncate(self._descriptors.of(self), self.size)
        except OSError:
            self.sealed = True  # the next segment begins at our end, which hides the rest

    def last_record(self) -> tuple[int, RecordHeader] | None:
        """Return position and header of the last record, whole or not, without reading what is before it."""
        window = _TAIL
        begin = self.end
        while begin > self.base + SEGMENT_HEADER_SIZE:
            begin = max(self.base + SEGMENT_HEADER_SIZE, self.end - window)
            data = self.read(begin, self.end - begin)
            at = data.rfind(RECORD_MAGIC)
            while at >= 0:
                header = unpack_record_header(data, at, begin + at, self._salt)
                if header:
                    return begin + at, header
                at = data.rfind(RECORD_MAGIC, 0, at + len(RECORD_MAGIC) - 1)
            window *= 8
        return None

    def before(self, sequence: int) -> int:
        """Return a position with all records of ``sequence`` and more behind it: near the end if they are.

        Raises StorageError.
        """
        first = self.base + SEGMENT_HEADER_SIZE
        window = _TAIL
        while self.end - window > first and self._salt != ANY_SALT:
            position = self._next_record(self.end - window)
            header = unpack_record_header(self.read(position, RECORD_HEADER_SIZE), 0, position, self._salt)
            if header and header.sequence < sequence:
                return position
            window *= 8
        return first

    def end_sequence(self) -> int | None:
        """Return the plain messages ever appended up to the end of this file; None if nothing in it tells."""
        found = self.last_record()
        if found:
            header = found[1]
            return header.sequence + (header.messages if header.kind in FOR_ALL else 0)
        return None if self._salt == ANY_SALT else self.sequence


class Unsynced:
    """The segments that were appended to since they were synced.

    ``add`` belongs to the thread that appends, ``sync`` to any one other at a time. Only operations that are atomic
    in themselves are shared, in an order that makes a segment come again rather than be missed.
    """

    def __init__(self) -> None:
        self._segments: deque[Segment] = deque()

    def __len__(self) -> int:
        return len(self._segments)

    def add(self, segment: Segment) -> None:
        """Note that ``segment`` was appended to."""
        if not segment.unsynced:
            segment.unsynced = True
            self._segments.append(segment)

    def sync(self) -> None:
        """Sync what was appended before the call. Raises StorageError.

        A segment that failed is not trusted again: nothing more is appended to it, and what was, never counts as
        synced.
        """
        failed: StorageError | None = None
        for _ in range(len(self._segments)):
            segment = self._segments.popleft()
            segment.unsynced = False
            try:
                if segment.sync_failed:
                    raise OSError(errno.EIO, "an earlier sync failed")
                segment.sync()
            except FileNotFoundError:
                continue  # released meanwhile
            except OSError as error:
                segment.sealed = segment.sync_failed = True
                failed = files.failure("sync", segment.path, error)
        if failed:
            raise failed


def read_header(path: Path) -> SegmentHeader | None:
    """Return the header of a segment file; None if it is damaged or there is none.

    Raises:
        StartupError: a later release wrote the file.
        StorageError: it cannot be opened.
    """
    try:
        descriptor = files.open_file(path, files.READ)
    except OSError as error:
        raise files.failure("open", path, error) from error
    try:
        header = unpack_segment_header(files.pread(descriptor, SEGMENT_HEADER_SIZE, 0))
    except OSError:
        return None
    finally:
        files.close(descriptor)
    if header and header.version > VERSION:
        raise StartupError(
            f"failed to open topic log - {path} is of version {header.version}, this is version {VERSION}"
        )
    return header
