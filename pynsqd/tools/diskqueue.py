"""The disk queues of nsqd, read only (PROTOCOL 3.7)."""

import re
from array import array
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import Final

from pynsqd.wire.errors import NsqError

_META: Final = re.compile(rb"(-?\d+)\n(\d+),(\d+)\n(\d+),(\d+)\n?")
_LENGTH: Final = Struct(">i")
_LEAST: Final = 26  # timestamp, attempts and id
_CHUNK: Final = 1 << 20
REMEDY: Final = "start that nsqd once more and stop it with SIGTERM"


class ImportRefusedError(NsqError):
    """The data path of nsqd is not as a stopped nsqd leaves it; the text says why in one line."""


class DiskQueue:
    """What a topic or a channel of nsqd has waiting on disk. ``depth`` is the number of messages, as its meta says."""

    def __init__(self, folder: Path, name: str) -> None:
        """Find the queue ``name``: ``topic`` or ``topic:channel``. Raises ImportRefusedError, OSError."""
        self._folder = folder
        self.name = name
        self.depth = 0
        self._spans: list[tuple[Path, int, int]] = []  # files, and where in them to read
        path = folder / f"{name}.diskqueue.meta.dat"
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            if self._data_files():
                raise ImportRefusedError(f"{path} is missing, and there are data files: nsqd was killed") from None
            return
        match = _META.fullmatch(raw)
        if not match:
            raise ImportRefusedError(f"{path} is damaged")
        depth, read_file, read_at, write_file, write_at = map(int, match.groups())
        if depth < 0 or (read_file, read_at) > (write_file, write_at):
            raise ImportRefusedError(f"{path} makes no sense: depth {depth}, reads beyond what is written; {REMEDY}")
        self.depth = depth
        self._find_spans(read_file, read_at, write_file, write_at)

    def _data_files(self) -> list[int]:
        pattern = re.compile(re.escape(self.name) + r"\.diskqueue\.(\d{6,})\.dat")
        matches = (pattern.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _find_spans(self, read_file: int, read_at: int, write_file: int, write_at: int) -> None:
        there = self._data_files()
        strange = [number for number in there if not read_file <= number <= write_file]
        if strange:
            raise ImportRefusedError(f"{self._path(strange[0])} is none that the meta file knows; {REMEDY}")
        for number in range(read_file, write_file + 1):
            path = self._path(number)
            begin = read_at if number == read_file else 0
            if number not in there:
                if number == write_file and begin == write_at:
                    continue  # nothing was written yet
                raise ImportRefusedError(f"{path} is missing")
            size = path.stat().st_size
            end = write_at if number == write_file else size
            if number == write_file and size != write_at:
                text = f"{path} has {size} bytes, the meta file says {write_at}: nsqd was killed"
                raise ImportRefusedError(f"{text}; {REMEDY}")
            if begin > end:
                raise ImportRefusedError(f"{path} ends before where it is to be read from; {REMEDY}")
            self._spans.append((path, begin, end))

    def _path(self, number: int) -> Path:
        return self._folder / f"{self.name}.diskqueue.{number:06d}.dat"

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(end - begin for _, begin, end in self._spans)

    def check(self, advance: Callable[[int], None]) -> None:
        """Read it all.

        Raises ImportRefusedError if it does not hold just what the meta file says, or two messages with one id: an nsqd
        that goes on in the files of a killed one may take the id of a new message from what stood there before.
        """
        ids = array("Q", map(message_number, self.records(advance)))
        if len(ids) != self.depth:
            raise ImportRefusedError(
                f"queue {self.name} has {len(ids)} messages, its meta file says {self.depth}; {REMEDY}"
            )
        twice = {one for one, following in pairwise(sorted(ids)) if one == following}
        if twice:
            self._check_copies(twice)

    def _check_copies(self, numbers: set[int]) -> None:
        """See that all copies of each of these messages are alike but for their attempts."""
        found: dict[int, bytes] = {}
        for record in self.records():
            number = message_number(record)
            if number not in numbers:
                continue
            message = sha256(record[:8] + record[_LEAST:]).digest()
            if found.setdefault(number, message) != message:
                text = f"queue {self.name} has two messages with the id {number:016x}: nsqd was killed and went on"
                raise ImportRefusedError(f"{text}; start that nsqd once more and let consumers finish them")

    def records(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
        """Yield the messages: timestamp, attempts, id, body. Raises ImportRefusedError for a bad one, OSError."""
        for path, begin, end in self._spans:
            with path.open("rb") as file:
                file.seek(begin)
                data = b""
                at = begin  # where ``data`` begins
                while at + len(data) < end:
                    more = file.read(min(_CHUNK, end - at - len(data)))
                    if not more:
                        raise ImportRefusedError(f"{path} was cut while it was read")
                    advance(len(more))
                    data += more
                    used = 0
                    while used + 4 <= len(data):
                        (length,) = _LENGTH.unpack_from(data, used)
                        if length < _LEAST or at + used + 4 + length > end:
                            raise ImportRefusedError(f"bad record at {at + used} of {path}: it claims {length} bytes")
                        if used + 4 + length > len(data):
                            break
                        yield data[used + 4 : used + 4 + length]
                        used += 4 + length
                    data = data[used:]
                    at += used
                if data:
                    raise ImportRefusedError(f"bad record at {at} of {path}: it is cut short")


def message_number(record: bytes) -> int:
    """Return a message's id as the number that its 16 hex digits are. Raises ImportRefusedError."""
    try:
        return int(record[10:_LEAST], 16)
    except ValueError:
        raise ImportRefusedError(f"{record[10:_LEAST]!r} is no message id of nsqd") from None
