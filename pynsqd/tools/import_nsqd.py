"""``pynsqd import-nsqd``: take over the data path of a real nsqd that was stopped.

nsqd keeps a copy of every message for every channel; here a topic has one log and its channels are cursors into it.
So the channel with the longest backlog is written first, ordered so that each other channel finds what it owes too from
some place on; that place is its cursor. What does not fit this, and what was delivered before, is owed by name. The
backlog of the topic itself comes last.
"""

import json
import re
import shutil
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Any, Final

from pynsqd.core.log import LOG
from pynsqd.options import Options
from pynsqd.storage import files
from pynsqd.storage.checkpoint import FILE_NAMES, Checkpoint
from pynsqd.storage.dirlock import DirLock
from pynsqd.storage.log_store import LogStore
from pynsqd.storage.metadata import FILE_NAME, ChannelMeta, TopicMeta, save
from pynsqd.storage.topic_log import TopicLog
from pynsqd.tools.command import CLEAN, FOUND, Arguments, run
from pynsqd.tools.diskqueue import DiskQueue, ImportRefusedError, message_number
from pynsqd.tools.progress import Progress
from pynsqd.wire.constants import FRAME_MESSAGE
from pynsqd.wire.encoder import message_id
from pynsqd.wire.errors import StartupError
from pynsqd.wire.names import is_ephemeral, is_valid_name

_NAME: Final = "pynsqd import-nsqd"
_STAGE: Final = "import.tmp"
_QUEUE_FILE: Final = re.compile(r"(.+)\.diskqueue\.(?:meta|\d{6,})\.dat")
_FRAME_HEAD: Final = Struct(">ii")
_ATTEMPTS: Final = Struct(">H")
_BATCH_BYTES: Final = 1 << 16
_SEEN: Final = 0x80  # of a level: written already
_MOST_CHANNELS: Final = 0x7F  # that share the log; what others owe is kept by name


@dataclass(slots=True)
class SourceChannel:
    """A channel of nsqd."""

    name: str
    paused: bool
    queue: DiskQueue


@dataclass(slots=True)
class SourceTopic:
    """A topic of nsqd; the channel with the longest backlog first."""

    name: str
    paused: bool
    queue: DiskQueue
    channels: list[SourceChannel] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """Run the tool; returns 0 if all was taken over, 1 if it was refused or failed, 2 for a wrong call."""
    return run(_NAME, lambda: _main(argv), failed=FOUND)


def _main(argv: Sequence[str]) -> int:
    parser = Arguments(prog=_NAME, description="Take over the data path of an nsqd that was stopped.")
    parser.add_argument("source", metavar="NSQD_DATA_PATH", type=Path, help="is only read")
    parser.add_argument("--data-path", "-data-path", type=Path, default=Path(), help="an empty folder for the node")
    arguments = parser.parse_args(argv)
    source, target = arguments.source, arguments.data_path
    for folder in (source, target):
        if not folder.is_dir():
            raise ImportRefusedError(f"{folder} is no folder")
    strange = sorted(path.name for path in target.iterdir() if path.name != "lost+found")
    if strange:
        raise ImportRefusedError(f"{target} is not empty: it has {strange[0]}")
    locks = [_lock(source, "stop nsqd first"), _lock(target, "take another folder")]
    try:
        _import(source, target)
    finally:
        for lock in locks:
            lock.release()
    return CLEAN


def _lock(folder: Path, advice: str) -> DirLock:
    try:
        return DirLock(folder)
    except StartupError as error:
        if "in use" in str(error):
            raise ImportRefusedError(f"{folder} is in use: {advice}") from None
        raise


def _import(source: Path, target: Path) -> None:
    topics = read_source(source)
    queues = [queue for topic in topics for queue in (topic.queue, *(one.queue for one in topic.channels))]
    with Progress("checking", sum(queue.size for queue in queues)) as progress:
        for queue in queues:
            queue.check(progress.advance)
    stage = target / _STAGE
    try:
        files.make_folder(stage)
        _write(stage, topics)
        _move(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write(stage: Path, topics: list[SourceTopic]) -> None:
    """Write a whole data path to ``stage``. Raises StorageError."""
    store = LogStore(stage, Options().max_bytes_per_file, lambda _topic, _text: None)
    checkpoint = Checkpoint(stage)
    kept = []
    for topic in topics:
        log = store.open(topic.name)
        with Progress(f"writing {topic.name}", _bytes_to_read(topic)) as progress:
            state = TopicImport(log, topic, progress.advance).write()
        log.sync()
        log.close()
        checkpoint.put(topic.name, state)
        channels = tuple(ChannelMeta(one.name, one.paused) for one in topic.channels)
        kept.append(TopicMeta(topic.name, topic.paused, LOG, channels))
        owed = sum(len(ids) // 16 for one in state["channels"].values() for _, ids, _ in one["owed"])
        backlog = ", ".join(f"{one.name} {one.queue.depth}" for one in topic.channels) or "none"
        text = f"{topic.name}: {topic.queue.depth} messages of the topic; channels: {backlog}"
        sys.stdout.write(f"{text}; {log.end} bytes, {owed} messages owed by name\n")
    checkpoint.write(sync=True)
    checkpoint.close()
    save(stage, kept)


def _bytes_to_read(topic: SourceTopic) -> int:
    sizes = [one.queue.size for one in topic.channels]
    return topic.queue.size + 2 * sum(sizes) + (sizes[0] if sizes else 0)


def _move(stage: Path, target: Path) -> None:
    """Put what was written in its place; the metadata last, as a node without them knows no topics."""
    files.make_folder(stage / "topics")
    files.sync_folder(stage / "topics")
    for name in ("topics", *FILE_NAMES, FILE_NAME):
        if (stage / name).exists():
            files.rename(stage / name, target / name)
        files.sync_folder(target)


# -- what nsqd has left ----------------------------------------------------------------------------------------------


def read_source(folder: Path) -> list[SourceTopic]:
    """Read nsqd.dat (PROTOCOL 3.5) and find the queues. Raises ImportRefusedError, OSError."""
    path = folder / "nsqd.dat"
    try:
        document = json.loads(path.read_bytes())
        topics = [_topic(folder, entry) for entry in document["topics"] or []]
    except FileNotFoundError:
        raise ImportRefusedError(f"{path} is missing: {folder} is no data path of nsqd") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ImportRefusedError(f"{path} is damaged: {error}") from None
    known = {queue.name for topic in topics for queue in (topic.queue, *(one.queue for one in topic.channels))}
    if len(known) != sum(1 + len(topic.channels) for topic in topics):
        raise ImportRefusedError(f"{path} has a topic or a channel twice")
    for name in sorted(one.name for one in folder.iterdir()):
        match = _QUEUE_FILE.fullmatch(name)
        if match and match[1] not in known:
            raise ImportRefusedError(f"{folder / name} belongs to no topic or channel of nsqd.dat: move it away")
    return topics


def _topic(folder: Path, entry: Any) -> SourceTopic:
    name = _valid_name(entry)
    topic = SourceTopic(name, _flag(entry), DiskQueue(folder, name))
    for one in entry["channels"] or []:
        channel = _valid_name(one)
        topic.channels.append(SourceChannel(channel, _flag(one), DiskQueue(folder, f"{name}:{channel}")))
    topic.channels.sort(key=lambda one: -one.queue.depth)
    return topic


def _valid_name(entry: Any) -> str:
    name = entry["name"]
    if not isinstance(name, str) or not is_valid_name(name) or is_ephemeral(name):
        raise ValueError(f"{name!r} is no name of a topic or channel that is kept")
    return name


def _flag(entry: Any) -> bool:
    paused = entry.get("paused", False)
    if not isinstance(paused, bool):
        raise TypeError(f"paused is {paused!r}")
    return paused


# -- one topic -------------------------------------------------------------------------------------------------------


class TopicImport:
    """Writes the messages of one topic.

    It takes 9 bytes of memory for a message of the longest channel (some 50 for a moment, while they are sorted), and
    16 for one that is owed by name.
    """

    def __init__(self, log: TopicLog, topic: SourceTopic, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._log = log
        self._topic = topic
        # The messages of the longest channel that were never delivered, by number, and of each how many channels, from
        # the first on without a gap, owe it: its level.
        self._ids: array[int] = array("Q")
        self._levels = bytearray()

    def write(self) -> dict[str, Any]:
        """Append everything and return the topic's checkpoint (core.owed). Raises StorageError, ImportRefusedError."""
        channels = self._topic.channels
        cursors = self._write_shared() if channels else []
        stop = [self._log.end, self._log.end_sequence]
        self._append(_frame(record) for record in self._topic.queue.records(self._advance))
        owed = [self._write_owed(rank, channel) for rank, channel in enumerate(channels, 1)]
        return {
            "end": self._log.end,
            "sequence": self._log.end_sequence,
            "serial": 0,
            "stop": None if channels and not self._topic.paused else stop,
            "waiting_from": 0,
            "released": 0,
            "wall": 0,
            "ids_grow_from": self._log.end,
            "channels": {
                channel.name: {"cursor": [cursor, 0], "from": 0, "owed": records, "superseded": b""}
                for channel, cursor, records in zip(channels, cursors, owed, strict=True)
            },
        }

    def _write_shared(self) -> list[int]:
        """Write the longest channel, level by level; returns the cursor of every channel."""
        longest, *others = self._topic.channels
        fresh = sorted({message_number(one) for one in longest.queue.records(self._advance) if not _attempts(one)})
        self._ids = array("Q", fresh)
        del fresh
        self._levels = bytearray(b"\1") * len(self._ids)
        for level, channel in enumerate(others[: _MOST_CHANNELS - 1], 2):
            for record in channel.queue.records(self._advance):
                index = -1 if _attempts(record) else self._index(record)
                if index >= 0 and self._levels[index] == level - 1:
                    self._levels[index] = level
        cursors = []
        for level in range(1, len(self._topic.channels) + 1):
            cursors.append(self._log.end)
            if level <= _MOST_CHANNELS and level in self._levels:
                self._append(map(_frame, self._of_level(level, longest.queue)))
        return cursors

    def _of_level(self, level: int, queue: DiskQueue) -> Iterator[bytes]:
        for record in queue.records(self._advance if level == 1 else lambda _: None):
            index = -1 if _attempts(record) else self._index(record)
            if index >= 0 and self._levels[index] == level:
                self._levels[index] |= _SEEN  # a second copy is the same message
                yield record

    def _index(self, record: bytes) -> int:
        number = message_number(record)
        index = bisect_left(self._ids, number)
        return index if index < len(self._ids) and self._ids[index] == number else -1

    def _write_owed(self, rank: int, channel: SourceChannel) -> list[list[Any]]:
        """Write what a channel does not find in the log behind its cursor; returns where, as the checkpoint has it."""
        owed = []
        for ids, frames, counts in _groups(map(_frame, self._unshared(rank, channel.queue))):
            owed.append([self._log.append_owed(channel.name, frames, len(ids)), b"".join(ids), counts])
        return owed

    def _unshared(self, rank: int, queue: DiskQueue) -> Iterator[bytes]:
        for record in queue.records(self._advance):
            index = -1 if _attempts(record) else self._index(record)
            if index < 0 or self._levels[index] & ~_SEEN < rank:
                yield record

    def _append(self, frames: Iterator[bytes]) -> None:
        for ids, joined, _ in _groups(frames):
            self._log.append_frames(joined, len(ids))


def _groups(frames: Iterator[bytes]) -> Iterator[tuple[list[bytes], bytes, list[int]]]:
    """Gather frames to records of about 64 KiB: ids, frames, and the attempts of each."""
    group: list[bytes] = []
    size = 0
    for frame in frames:
        group.append(frame)
        size += len(frame)
        if size >= _BATCH_BYTES:
            yield _group(group)
            group, size = [], 0
    if group:
        yield _group(group)


def _group(frames: list[bytes]) -> tuple[list[bytes], bytes, list[int]]:
    counts = [int.from_bytes(frame[16:18], "big") for frame in frames]
    return [message_id(frame) for frame in frames], b"".join(frames), counts


def _attempts(record: bytes) -> int:
    """Return how often nsqd has delivered a message."""
    count: int = _ATTEMPTS.unpack_from(record, 8)[0]
    return count


def _frame(record: bytes) -> bytes:
    """Return the frame of a message's next delivery."""
    head = _FRAME_HEAD.pack(len(record) + 4, FRAME_MESSAGE)
    return head + record[:8] + _ATTEMPTS.pack((_attempts(record) + 1) & 0xFFFF) + record[10:]
