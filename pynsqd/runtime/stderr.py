"""Standard error that never makes its writer wait (PROCESS 3)."""

import os
import select
import threading
from collections.abc import Callable
from typing import Final

_MOST_WAITING: Final = 256 * 1024  # bytes; days of log at the default level


class StderrWriter:
    """Hands lines to a thread of its own, which alone can be held up by a pipe that nobody reads.

    What does not fit in the bounded queue is dropped and counted. The descriptor's flags stay as they are: it may be
    shared with other processes, and O_NONBLOCK would be theirs too.
    """

    def __init__(self, descriptor: int, on_dropped: Callable[[int], None]) -> None:
        """Start the thread. It calls ``on_dropped`` with the number of lines lost once writing works again."""
        self._descriptor = descriptor
        self._on_dropped = on_dropped
        self._changed = threading.Condition()
        self._lines: list[bytes] = []
        self._waiting = 0  # bytes in _lines
        self._dropped = 0  # lines since the last call of on_dropped
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue ``line`` and return at once; a newline is added."""
        raw = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._closing or self._waiting + len(raw) > _MOST_WAITING:
                self._dropped += 1
                return
            self._lines.append(raw)
            self._waiting += len(raw)
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Write what is queued, for ``timeout_s`` at most; later lines are dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while chunk := self._take():
            lost = not self._write_all(chunk)
            with self._changed:
                dropped, self._dropped = self._dropped, 0
            if dropped and not lost:
                self._on_dropped(dropped)

    def _take(self) -> bytes:
        with self._changed:
            while not self._lines and not self._closing:
                self._changed.wait()
            chunk = b"".join(self._lines)
            self._lines.clear()
            self._waiting = 0
            return chunk

    def _write_all(self, chunk: bytes) -> bool:
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody else made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # closed, or its reader is gone: the log is lost, the daemon is not
                return False
        return True
