"""The logs of all topics of a node, with their deferred messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pynsqd.storage import files
from pynsqd.storage.deferred_store import FILE_NAME as DEFERRED_NAME
from pynsqd.storage.deferred_store import DeferredStore
from pynsqd.storage.descriptors import Descriptors
from pynsqd.storage.quarantine import Quarantine
from pynsqd.storage.removal import Removal
from pynsqd.storage.segment import read_header
from pynsqd.storage.timings import Timings
from pynsqd.storage.topic_log import BAD, DEFERRED, TopicLog, is_ours, segment_base
from pynsqd.wire.names import is_valid_name

_TOPIC_SUFFIX: Final = ".log"
_REMOVED: Final = "removed"

Report = Callable[[str, str], None]


class LogStore:
    """The logs of a node, in the folder ``topics`` of its data path."""

    def __init__(self, folder: Path, max_bytes_per_file: int, on_damage: Report) -> None:
        """Keep the logs in data path ``folder``; ``on_damage`` hears, with the topic, of what is wrong with files.

        It is called in another thread too.
        """
        self.timings = Timings()
        self._descriptors = Descriptors()
        self._folder = folder / "topics"
        self._folders = files.NewFolders(self._folder)
        self._max_bytes = max_bytes_per_file
        self._on_damage = on_damage
        self._removal = Removal(self._folder / _REMOVED, is_ours, on_damage)
        self._quarantines: dict[str, Quarantine] = {}  # of logs whose deferred messages are still to be opened

    def topics(self) -> list[str]:
        """Return the topics that have files. Raises StorageError."""
        return [topic for topic, paths in self._found().items() if paths]

    def check(self) -> None:
        """Look at the version of every file of every topic and touch none: to be called before the first ``open``.

        Raises:
            StartupError: a later release wrote one of them.
            StorageError: one cannot be opened.
        """
        for paths in self._found().values():
            for path in paths:
                read_header(path)

    def _found(self) -> dict[str, list[Path]]:
        """Return the files of each topic."""
        try:
            names = [name for name, size in files.list_folder(self._folder) if size < 0]
            topics = {
                name.removesuffix(_TOPIC_SUFFIX): self._folder / name for name in names if name.endswith(_TOPIC_SUFFIX)
            }
            return {topic: _files_in(folder) for topic, folder in topics.items() if is_valid_name(topic)}
        except OSError as error:
            raise files.failure("open", self._folder, error) from error

    def go_on_removing(self) -> None:
        """Remove what a node that was killed had still to remove. For when this one is sure to start."""
        self._removal.go_on()

    def close(self) -> None:
        """Remove what is still to be removed, for some seconds at most; the logs are to be closed by themselves."""
        self._removal.close()

    def open(self, topic: str, known_end: int = -1, known_sequence: int = 0) -> TopicLog:
        """Return the log of ``topic`` as it was when its node stopped or died; a new one if there are no files.

        ``known_end`` and ``known_sequence`` are its end and end_sequence at some time before that, as a checkpoint
        says: should less be left, the log goes on there.

        Raises:
            StartupError: a later release wrote one of its files; nothing was touched.
            StorageError: its files cannot be opened.
        """
        folder = self._folder / (topic + _TOPIC_SUFFIX)
        quarantine = self._quarantines[topic] = self._quarantine(folder, topic)
        try:
            return TopicLog(
                folder,
                self._max_bytes,
                self._descriptors,
                quarantine,
                self.timings,
                folders=self._folders,
                known_end=known_end,
                known_sequence=known_sequence,
            )
        except OSError as error:
            raise files.failure("open", folder, error) from error

    def open_deferred(self, topic: str, known_serial: int = 0) -> DeferredStore:
        """Return the deferred messages of ``topic``; ``known_serial`` is a next_serial of before. Raises as ``open``.

        Its damage counts with that of the log, if that was opened just before.
        """
        folder = self._folder / (topic + _TOPIC_SUFFIX)
        quarantine = self._quarantines.pop(topic, None) or self._quarantine(folder, topic)
        try:
            return DeferredStore(folder / DEFERRED, self._descriptors, quarantine, known_serial)
        except OSError as error:
            raise files.failure("open", folder / DEFERRED, error) from error

    def _quarantine(self, folder: Path, topic: str) -> Quarantine:
        return Quarantine(folder / BAD, topic, self._on_damage, self._removal)


def _files_in(folder: Path) -> list[Path]:
    segments = [folder / name for name, size in files.list_folder(folder) if size >= 0 and segment_base(name) >= 0]
    deferred = folder / DEFERRED
    return segments + [deferred / name for name, _ in files.list_folder(deferred) if DEFERRED_NAME.fullmatch(name)]
