"""Makes the storage's files fail as a full, broken or slow disk does."""

import errno
import os
import threading
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

import pytest

from pynsqd.storage import files


class FailingFiles:
    """Stands between the storage and the system calls of pynsqd.storage.files; does nothing until it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._real = {
            name: getattr(files, name)
            for name in ("close", "fdatasync", "fsync", "open_file", "pread", "rename", "truncate", "unlink", "writev")
        }
        self._refusals = -1
        self._room = -1
        self._short = 0
        self.calls: dict[str, int] = dict.fromkeys(self._real, 0)
        for name in self._real:
            self._install(name, self._counting(name))
        self._install("writev", self._writev)

    def fail(self, name: str, code: int = errno.EIO, after: int = 0) -> None:
        """Let every call of ``files.<name>`` fail with an errno, but for the first ``after`` ones."""
        left = after

        def failing(*arguments: Any) -> Any:
            nonlocal left
            if left:
                left -= 1
                return self._real[name](*arguments)
            raise OSError(code, os.strerror(code))

        self._install(name, failing)

    def fail_reads(self, offsets: range) -> None:
        """Let reads that touch one of these offsets of any file fail with EIO."""

        def failing(descriptor: int, size: int, offset: int) -> bytes:
            if offset < offsets.stop and offsets.start < offset + size:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return os.pread(descriptor, size, offset)

        self._install("pread", failing)

    def full_after(self, room: int, refusals: int = -1) -> None:
        """Let the disk be full when ``room`` more bytes were written: the last write is short, then ENOSPC.

        After so many ``refusals`` there is room again.
        """
        self._room = room
        self._refusals = refusals

    def write_at_most(self, size: int) -> None:
        """Let every write take no more than ``size`` bytes, as it may."""
        self._short = size

    def hold(self, name: str) -> threading.Event:
        """Let every call of ``files.<name>`` wait until the event that is returned is set."""
        go_on = threading.Event()

        def waiting(*arguments: Any) -> Any:
            self.calls[name] += 1
            assert go_on.wait(30)
            return self._real[name](*arguments)

        self._install(name, waiting)
        return go_on

    def wait_for(self, name: str) -> None:
        """Wait until ``files.<name>`` has been called."""
        deadline_s = monotonic() + 30
        while not self.calls[name]:
            assert monotonic() < deadline_s, f"{name} was not called"
            sleep(0.001)

    def heal(self) -> None:
        """Let everything work again."""
        self._room = -1
        self._short = 0
        for name in self._real:
            self._install(name, self._counting(name))
        self._install("writev", self._writev)

    def _install(self, name: str, function: Any) -> None:
        self._monkeypatch.setattr(files, name, function)

    def _counting(self, name: str) -> Any:
        def counting(*arguments: Any) -> Any:
            self.calls[name] += 1
            return self._real[name](*arguments)

        return counting

    def _writev(self, descriptor: int, parts: Sequence[bytes]) -> int:
        self.calls["writev"] += 1
        data = b"".join(parts)
        if self._short:
            data = data[: self._short]
        if self._room >= 0:
            if not self._room:
                self._refusals -= 1
                self._room = -1 if not self._refusals else 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[: self._room]
            self._room -= len(data)
        return os.write(descriptor, data)
