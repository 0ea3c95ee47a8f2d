"""Logs in memory with the behaviour of the ones on disk, for tests of the core. Records stay when a log is reopened."""

from collections.abc import Collection, Iterator

from pynsqd.core.batch import Batch, Published
from pynsqd.core.log import DEFERRED_BIT, DeferredRecord, bucket_of
from pynsqd.wire.encoder import message_id, split_frames
from pynsqd.wire.errors import StorageError

_HEADER = 40


class MemoryLog:
    """A topic's log as a list of records."""

    def __init__(self) -> None:
        self.records: list[tuple[int, str, Batch, int]] = []  # position, channel, batch, sequence
        self.start = self.end = 0
        self.start_sequence = self.end_sequence = 0
        self.damaged_records = self.damaged_bytes = 0
        self.failing = ""
        self.deleted = False
        self.staged: list[Published] = []

    def append(self, batch: Published) -> None:
        staged, self.staged = self.staged, []
        for one in (*staged, batch):
            one.position = self._append("", one)
            self.end_sequence += len(one.ids)

    def stage(self, batches: list[Published]) -> None:
        if self.failing:
            self.unstage()
            raise StorageError(self.failing)
        self.staged += batches

    def keeps(self, staged: list[Published]) -> bool:
        return staged is self.staged and bool(staged)

    def unstage(self) -> None:
        self.staged = []

    def append_owed(self, channel: str, frames: bytes, count: int) -> int:
        ids = [message_id(frame) for frame in split_frames(frames)]
        assert len(ids) == count
        self.unstage()
        return self._append(channel, Batch(ids, frames))

    def _append(self, channel: str, batch: Batch) -> int:
        if self.failing:
            raise StorageError(self.failing)
        position = self.end
        kept = Batch(batch.ids, batch.frames, position, fresh=not channel)
        self.records.append((position, channel, kept, self.end_sequence))
        self.end += _HEADER + len(batch.frames)
        return position

    def read(self, position: int, stop: int, max_bytes: int) -> tuple[list[Batch], int, int]:
        batches: list[Batch] = []
        taken = 0
        for at, channel, batch, sequence in self.records:
            if at < position:
                continue
            if at >= stop or (batches and taken >= max_bytes):
                return batches, at, sequence
            if not channel:
                batches.append(Batch(batch.ids, batch.frames, at))
                taken += len(batch.frames)
        return batches, self.end, self.end_sequence

    def fetch(self, position: int, ids: Collection[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for at, _, batch, _ in self.records:
            if at >= position:
                for one, frame in zip(batch.ids, split_frames(batch.frames), strict=True):
                    if one in ids:
                        found.setdefault(one, frame)
        return found

    def owed_since(self, position: int) -> Iterator[tuple[str, Batch]]:
        for at, channel, batch, _ in self.records:
            if at >= position and channel:
                yield channel, batch

    def live_segments(self) -> list[tuple[int, int]]:
        return [(self.start, self.end - self.start)]

    def release(self, position: int) -> None:
        while self.records and self.records[0][0] < position:
            self.records.pop(0)
        self.start = self.records[0][0] if self.records else self.end
        self.start_sequence = self.records[0][3] if self.records else self.end_sequence

    def sync(self) -> None: ...

    def probe(self) -> None:
        if self.failing:
            raise StorageError(self.failing)

    def close(self) -> None: ...

    def delete(self) -> None:
        self.deleted = True


class MemoryDeferred:
    """A topic's deferred messages as a dict of lists."""

    def __init__(self) -> None:
        self.next_serial = 0
        self.filed: dict[int, list[DeferredRecord]] = {}
        self.failing = ""

    @property
    def first_serial(self) -> int:
        return min((records[0].serial for records in self.filed.values()), default=self.next_serial)

    def append(self, channel: str, due_wall_ns: int, frames: bytes, count: int) -> int:
        if self.failing:
            raise StorageError(self.failing)
        bucket = bucket_of(due_wall_ns)
        records = self.filed.setdefault(bucket, [])
        position = DEFERRED_BIT | bucket << 34 | len(records)
        ids = [message_id(frame) for frame in split_frames(frames)]
        records.append(DeferredRecord(self.next_serial, channel, due_wall_ns, position, ids, frames))
        self.next_serial += 1
        return position

    def buckets(self) -> list[int]:
        return sorted(self.filed)

    def load(self, bucket: int, from_serial: int = 0, due_after_ns: int = -1) -> Iterator[DeferredRecord]:
        for record in list(self.filed[bucket]):
            if record.serial >= from_serial and record.due_wall_ns > due_after_ns:
                yield record

    def fetch(self, position: int, ids: Collection[bytes]) -> dict[bytes, bytes]:
        for records in self.filed.values():
            for record in records:
                if record.position == position:
                    return {
                        one: frame
                        for one, frame in zip(record.ids, split_frames(record.frames), strict=True)
                        if one in ids
                    }
        return {}

    def drop(self, bucket: int) -> None:
        del self.filed[bucket]

    def sync(self) -> None: ...

    def close(self) -> None: ...


class MemoryLogs:
    """The logs of a node; build a second broker on them to test a restart."""

    def __init__(self) -> None:
        self.logs: dict[str, MemoryLog] = {}
        self.deferred: dict[str, MemoryDeferred] = {}

    def open(self, topic: str, known_end: int = -1, known_sequence: int = 0) -> MemoryLog:
        if topic in self.logs and self.logs[topic].deleted:
            del self.logs[topic]
            self.deferred.pop(topic, None)
        log = self.logs.setdefault(topic, MemoryLog())
        if known_end > log.end:
            log.start = log.end = known_end
        log.end_sequence = max(log.end_sequence, known_sequence)
        return log

    def open_deferred(self, topic: str, known_serial: int = 0) -> MemoryDeferred:
        store = self.deferred.setdefault(topic, MemoryDeferred())
        store.next_serial = max(store.next_serial, known_serial)
        return store
