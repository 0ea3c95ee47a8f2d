"""The lock on the data path: one node a folder. flock, so that it dies with the process (PROTOCOL 3.1)."""

import fcntl
import os
from pathlib import Path

from pynsqd.wire.errors import StartupError

_WHY = "failed to instantiate nsqd - failed to lock data-path:"


class DirLock:
    """Holds an exclusive lock on the folder itself until ``release`` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        """Lock ``folder``. Raises StartupError if it is missing, unreadable or in use."""
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StartupError(f"{_WHY} open {folder}: {_cause(error)}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            why = f"{_cause(error)} (possibly in use by another instance of nsqd)"
            raise StartupError(f"{_WHY} cannot flock directory {folder} - {why}") from None

    def release(self) -> None:
        """Let another node have the folder."""
        os.close(self._descriptor)


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
