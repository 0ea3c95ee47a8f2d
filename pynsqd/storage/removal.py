"""What is removed: its name goes at once, what it takes on the disk in a thread.

To unlink a file takes until the system has freed its blocks: 36 ms for 100 MB on ext4, 3 ms for a small one. To rename
it takes 0.02 ms, so it is moved into a folder of its own and unlinked there. What a kill leaves in that, the next start
unlinks.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from math import inf
from pathlib import Path
from queue import SimpleQueue
from secrets import token_hex
from threading import Thread
from time import monotonic
from typing import Final

from pynsqd.storage import files

_CLOSE_S: Final = 5.0
_NAME: Final = re.compile(r"(.*)\.[0-9a-f]{16}-[0-9]+")


class Removal:
    """Removes files and folders of topics. One thread for as long as the node lives, for all of them."""

    def __init__(self, folder: Path, is_ours: Callable[[str, int], bool], report: Callable[[str, str], None]) -> None:
        """Move what is removed to ``folder``, which must be on the same file system.

        ``is_ours`` tells by name and size (-1: a folder) what of a folder may go. ``report`` hears, with the topic and
        in the thread, what could not be unlinked.
        """
        self._folder = folder
        self._is_ours = is_ours
        self._report = report
        self._life = token_hex(8)  # no name may be one that an earlier life has left
        self._numbers = count()
        self._moved: SimpleQueue[Path | None] = SimpleQueue()
        self._until_s = inf
        self._thread = Thread(target=self._work, name="remove", daemon=True)

    def remove(self, path: Path, topic: str) -> None:
        """Remove a file of ``topic``, or a folder with what is ours in it. Its name is gone then.

        Raises OSError; then it is still there, or some of it.
        """
        if not path.exists():
            return
        moved = self._folder / f"{topic}.{self._life}-{next(self._numbers)}"
        try:
            files.make_folder(self._folder)
            files.rename(path, moved)
        except OSError:  # a full disk has no room for another name, but to unlink needs none
            for _ in self._unlink(path):
                pass
        else:
            self._begin(moved)

    def go_on(self) -> None:
        """Unlink what earlier lives have left."""
        try:
            for name, _ in files.list_folder(self._folder):
                if _NAME.fullmatch(name):
                    self._begin(self._folder / name)
        except OSError as error:
            self._report("", str(files.failure("open", self._folder, error)))

    def close(self) -> None:
        """Unlink what is left, for 5 s at most, and end the thread. The next start goes on with the rest."""
        if self._thread.ident is not None:
            self._until_s = monotonic() + _CLOSE_S
            self._moved.put(None)
            self._thread.join()

    def _begin(self, moved: Path) -> None:
        self._moved.put(moved)
        if self._thread.ident is None:
            self._thread.start()

    def _work(self) -> None:
        while (moved := self._moved.get()) is not None:
            try:
                for _ in self._unlink(moved):
                    if monotonic() > self._until_s:
                        return
            except OSError as error:
                match = _NAME.fullmatch(moved.name)
                self._report(match[1] if match else "", str(files.failure("remove", moved, error)))

    def _unlink(self, path: Path) -> Iterator[None]:
        """Unlink one file after the other, then the folder. Raises OSError, also for a folder with what is not ours."""
        with suppress(FileNotFoundError):
            if path.is_dir():
                for name, size in files.list_folder(path):
                    if self._is_ours(name, size):
                        yield from self._unlink(path / name)
                files.remove_folder(path)
            else:
                files.unlink(path)
                yield
