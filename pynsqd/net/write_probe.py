"""Tries whether the disk takes what is written, without waiting longer for it than a while."""

import asyncio
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Final

from pynsqd.storage import files

_TIMEOUT_S: Final = 2.0  # an fsync of 64 KiB on a busy disk takes less
_FRESH_S: Final = 1.0  # whoever asks again so soon gets the same answer


class WriteProbe:
    """Writes, syncs and removes a file, in a thread, once at a time however many ask."""

    def __init__(self, path: Path) -> None:
        """Prepare to write ``path``; nothing is written before somebody asks."""
        self._path = path
        self._result: asyncio.Future[str] | None = None
        self._began_s = 0.0

    async def failure(self) -> str:
        """Return what is wrong, or nothing. A write that hangs is waited for two seconds, and is not begun twice."""
        result = self._result
        if result is None or (result.done() and monotonic() - self._began_s > _FRESH_S):
            result = self._begin()
        await asyncio.wait([result], timeout=_TIMEOUT_S)
        if result.done():
            return result.result()
        return f"write {self._path}: no answer for {monotonic() - self._began_s:.0f} s"

    def _begin(self) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        self._began_s = monotonic()
        result = self._result = loop.create_future()

        def probe() -> None:
            failure = self._probe()
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(result.set_result, failure)

        # A thread of its own: one that hangs must not keep the node from its end, nor those who fsync from a thread.
        Thread(target=probe, name="write probe", daemon=True).start()
        return result

    def _probe(self) -> str:
        try:
            files.probe(self._path)
        except OSError as error:
            return str(files.failure("write", self._path, error))
        return ""
