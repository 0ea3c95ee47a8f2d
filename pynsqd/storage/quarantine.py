"""What happens to damage: it is counted, reported, and its bytes are set aside."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pynsqd.storage import files
from pynsqd.storage.segment import Segment
from pynsqd.wire.errors import StorageError

_CHUNK: Final = 1 << 20


class Quarantine:
    """Counts the damaged places of one topic, reports them and sets their bytes aside. Each place counts once."""

    def __init__(self, folder: Path, topic: str, report: Callable[[str, str], None]) -> None:
        self._folder = folder
        self._known: list[tuple[int, int]] = []
        self._on_report = report
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

    def remove(self, segment: Segment) -> bool:
        """Remove the file of a segment that nobody needs; a failure is reported, and the file is still there.

        If some of it could not be read it is set aside instead: it may be read another day.
        """
        segment.close()
        try:
            if segment.unreadable:
                files.make_folder(self._folder)
                files.rename(segment.path, self._folder / segment.path.name)
            else:
                files.unlink(segment.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.report(str(files.failure("remove", segment.path, error)))
            return False
        return True

    def _count(self, position: int, size: int) -> bool:
        if any(start <= position < stop for start, stop in self._known):
            return False
        self._known.append((position, position + size))
        self.bytes += size
        self.records += 1
        return True

    def _copy(self, segment: Segment, position: int, size: int) -> str:
        path = self._folder / f"{position:020d}.bad"
        try:
            files.make_folder(self._folder)
            descriptor = files.open_file(path, files.CREATE)
            try:
                for at in range(position, position + size, _CHUNK):
                    files.write_all(descriptor, [segment.read(at, min(_CHUNK, position + size - at))])
            finally:
                files.close(descriptor)
        except (OSError, StorageError) as error:
            return f"could not be set aside: {error}"
        return f"set aside as {path}"
