"""What happens to damage: it is counted, reported, and its bytes are set aside."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

from pynsqd.storage import files
from pynsqd.storage.removal import Removal
from pynsqd.storage.segment import Segment
from pynsqd.wire.errors import StorageError

_CHUNK: Final = 1 << 20


class Quarantine:
    """Counts the damaged places of one topic, reports them and sets their bytes aside. Each place counts once."""

    def __init__(self, folder: Path, topic: str, report: Callable[[str, str], None], removal: Removal) -> None:
        self._folder = folder
        self._known: list[tuple[int, int]] = []
        self._on_report = report
        self._removal = removal
        self._topic = topic
        self.bytes = 0
        self.records = 0

    def report(self, text: str) -> None:
        """Say what is wrong with the topic's files."""
        self._on_report(self._topic, text)

    def add(self, segment: Segment, position: int, size: int, why: str) -> None:
        """Take the damaged ``size`` bytes at ``position`` of ``segment``; for the parameter ``on_damage`` of that."""
        if self._count(position, size):
            kept = self._copy(segment, position, size)
            place = f"{size} bytes at {position - segment.base} of {segment.path}"
            self.report(f"{place} are damaged and passed over: {why}; {kept}")

    def miss(self, folder: Path, position: int, size: int) -> None:
        """Take it that the ``size`` bytes at ``position`` are in no segment."""
        if self._count(position, size):
            self.report(f"{size} bytes at position {position} of {folder} are missing and passed over")

    def retire(self, segment: Segment) -> bool:
        """Remove the file of a segment that nobody needs; a failure is reported, and the file is still there.

        If some of it could not be read it is set aside instead: it may be read another day.
        """
        segment.close()
        if not segment.unreadable:
            return self.remove(segment.path)
        try:
            files.make_folder(self._folder)
            files.rename(segment.path, self._unused(segment.path))
        except FileNotFoundError:
            pass
        except OSError as error:
            self.report(str(files.failure("remove", segment.path, error)))
            return False
        return True

    def remove(self, path: Path) -> bool:
        """Remove a file or folder of the topic; a failure is reported, and it is still there, or some of it."""
        try:
            self._removal.remove(path, self._topic)
        except OSError as error:
            self.report(str(files.failure("remove", path, error)))
            return False
        return True

    def _unused(self, path: Path) -> Path:
        """Return where a file can be put without taking the place of another."""
        aside = self._folder / path.name
        numbers = count(1)
        while aside.exists():
            aside = self._folder / f"{path.stem}-{next(numbers)}{path.suffix}"
        return aside

    def _count(self, position: int, size: int) -> bool:
        if any(start <= position < stop for start, stop in self._known):
            return False
        self._known.append((position, position + size))
        self.bytes += size
        self.records += 1
        return True

    def _copy(self, segment: Segment, position: int, size: int) -> str:
        try:
            path = set_aside(self._folder, position, size, lambda at, length: segment.read(position + at, length))
        except (OSError, StorageError) as error:
            return f"could not be set aside: {error}"
        return f"set aside as {path}"


def set_aside(folder: Path, position: int, size: int, read: Callable[[int, int], bytes]) -> Path:
    """Keep the ``size`` bytes that ``read(offset, length)`` gives in ``folder``; returns the file, named by position.

    Other bytes that were set aside there before stay, and the same ones are not kept twice. Raises OSError, and what
    ``read`` raises; then nothing was kept.
    """
    files.make_folder(folder)
    numbers = count()
    while True:
        number = next(numbers)
        path = folder / f"{position:020d}{f'-{number}' if number else ''}.bad"
        try:
            descriptor = files.open_file(path, files.CREATE_NEW)
        except FileExistsError:
            if _is_there(path, size, read):
                return path
            continue
        try:
            for at in range(0, size, _CHUNK):
                files.write_all(descriptor, [read(at, min(_CHUNK, size - at))])
        except (OSError, StorageError):
            files.unlink(path)
            raise
        finally:
            files.close(descriptor)
        return path


def _is_there(path: Path, size: int, read: Callable[[int, int], bytes]) -> bool:
    """Tell whether the file has just the bytes that ``read`` gives."""
    descriptor = files.open_file(path, files.READ)
    try:
        if len(files.pread(descriptor, 1, size)):
            return False
        chunks = ((at, min(_CHUNK, size - at)) for at in range(0, size, _CHUNK))
        return all(files.pread(descriptor, length, at) == read(at, length) for at, length in chunks)
    finally:
        files.close(descriptor)
