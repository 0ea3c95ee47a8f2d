"""The seam to the file system: the storage reaches files by these names only, so that tests can make them fail.

Call them through the module (``files.pread``). They raise OSError; ``failure`` makes a StorageError of it.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from pynsqd.wire.errors import StorageError

close = os.close
fsync = os.fsync
fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has none
pread = os.pread
rename = os.rename
remove_folder = os.rmdir
truncate = os.ftruncate
unlink = os.unlink
writev = os.writev

READ: Final = os.O_RDONLY
APPEND: Final = os.O_RDWR | os.O_APPEND
CREATE: Final = APPEND | os.O_CREAT | os.O_TRUNC
CREATE_NEW: Final = APPEND | os.O_CREAT | os.O_EXCL

_PROBE_SIZE: Final = 1 << 16  # more than most batches


def open_file(path: Path, flags: int) -> int:
    """Return a descriptor of the file; a new file is for its owner only (0600)."""
    return os.open(path, flags, 0o600)


class NewFolders:
    """The folders that were made in one, whose names survive a loss of power only after a ``sync``.

    ``make`` belongs to one thread, ``sync`` to any one at a time. It is one for all topics that are new, where one for
    each held the loop up for 2.5 ms.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._unsynced = False

    def make(self, folder: Path) -> None:
        """Make sure that the folder is there, for its owner only (0700). Raises OSError."""
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            return
        except FileNotFoundError:
            make_folder(folder)
        self._unsynced = True

    def sync(self) -> None:
        """Make the names of the folders that were made before the call survive a loss of power. Raises OSError."""
        if self._unsynced:
            self._unsynced = False
            try:
                sync_folder(self._parent)
            except OSError:
                self._unsynced = True
                raise


def list_folder(folder: Path) -> list[tuple[str, int]]:
    """Return the names in a folder with their sizes in bytes, sorted; a folder that is not there has none.

    Folders in it have size -1, links that lead nowhere are left out.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found.append((entry.name, -1 if entry.is_dir() else entry.stat().st_size))
    except FileNotFoundError:
        return []
    return sorted(found)


def make_folder(folder: Path) -> None:
    """Make sure that the folder is there, for its owner only (0700), and will be there after a loss of power."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folder(folder.parent)
        make_folder(folder)
        return
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = open_file(folder, READ)
    try:
        fsync(descriptor)
    finally:
        close(descriptor)


def write_all(descriptor: int, parts: list[bytes]) -> None:
    """Write ``parts`` one after the other. A short write is gone on with, so that the system says why it was short."""
    written = writev(descriptor, parts)
    if written == sum(map(len, parts)):
        return
    rest = memoryview(b"".join(parts))[written:]
    while rest:
        written = writev(descriptor, [rest])
        if not written:
            raise OSError(0, "short write")
        rest = rest[written:]


def probe(path: Path) -> None:
    """Write a file, sync it and remove it: does the disk work? Raises OSError."""
    descriptor = open_file(path, CREATE)
    try:
        write_all(descriptor, [bytes(_PROBE_SIZE)])
        fdatasync(descriptor)
    finally:
        close(descriptor)
        unlink(path)


def failure(verb: str, path: Path, error: OSError) -> StorageError:
    """Return the StorageError for what failed, as "write /data/x: no space left on device"."""
    return StorageError(f"{verb} {path}: {(error.strerror or str(error)).lower()}")
