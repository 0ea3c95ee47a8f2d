"""Messages that are not to be delivered before a due time: DPUB, /pub?defer= and REQ with a delay.

All of them are on disk, filed by due time. Those due within the next minute or two are in memory too; the buckets
beyond that are read when their time comes, so a million messages for tomorrow cost a number.
"""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from pynsqd.core.batch import Batch
from pynsqd.core.log import READ_AGAIN_NS, DeferredRecord, DeferredStore, bucket_of, bucket_start_ns
from pynsqd.core.timers import Timer
from pynsqd.wire.errors import StorageError

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.channel import Channel
    from pynsqd.core.topic import Topic

# How many messages of a bucket are read in one go, so that a large one does not keep the loop.
_LOAD_AT_ONCE: Final = 1000
_LOAD_PAUSE_NS: Final = 2_000_000
_NONE: Final[Mapping[tuple[str, bytes], int]] = {}


class Deferred:
    """What one channel holds back: batches by due time, nearest first, and how many messages lie in buckets beyond."""

    __slots__ = ("_count", "_heap", "_serial", "far", "from_serial", "own_from")

    def __init__(self, from_serial: int, own_from: int) -> None:
        self._heap: list[tuple[int, int, Batch]] = []
        self._count = 0  # messages in it
        self._serial = 0
        self.far: dict[int, int] = {}  # bucket to the number of messages that are only on disk
        # What was deferred before is not this channel's, which was not there yet, or emptied: what was published, and
        # what a channel of its name gave back. The two differ while a topic is paused: what waits on it is ours.
        self.from_serial = from_serial
        self.own_from = own_from

    def __len__(self) -> int:
        return self._count + sum(self.far.values())

    def add(self, due_ns: int, batch: Batch) -> None:
        """Hold ``batch``, whose position is among the deferred messages on disk, until ``due_ns``."""
        self._serial += 1
        self._count += batch.count
        heappush(self._heap, (due_ns, self._serial, batch))

    def take_due(self, now_ns: int) -> list[Batch]:
        """Return what is due and let go of it; equal times keep the order in which they came."""
        heap = self._heap
        due = []
        while heap and heap[0][0] <= now_ns:
            _, _, batch = heappop(heap)
            self._count -= batch.count
            # The batch itself is the other channels' too.
            due.append(Batch(batch.ids, batch.frames, batch.position, fresh=False))
        return due

    @property
    def next_due_ns(self) -> int:
        """When the next batch in memory is due, in ns; 0 if there is none."""
        return self._heap[0][0] if self._heap else 0

    def in_memory(self) -> list[tuple[int, Batch]]:
        """Return (due_ns, batch) of what is in memory only."""
        return [(due_ns, batch) for due_ns, _, batch in self._heap if batch.position < 0]

    def clear(self, from_serial: int, own_from: int) -> None:
        """Drop everything; what was published before ``from_serial`` or given back before ``own_from`` is not ours."""
        self._heap.clear()
        self._count = 0
        self.far.clear()
        self.from_serial = from_serial
        self.own_from = own_from


class Deferrals:
    """The deferred messages of a topic. A bucket is either *far*, with all it holds only on disk, or in memory."""

    __slots__ = (
        "_broker",
        "_far",
        "_loading",
        "_loading_bucket",
        "_loading_from",
        "_loading_upto",
        "_store",
        "_timer",
        "_topic",
        "_waiting",
        "_waiting_count",
        "_waiting_far",
        "dropped",
        "waiting_from",
    )

    def __init__(self, topic: "Topic", broker: "Broker", store: DeferredStore | None) -> None:
        self._topic = topic
        self._broker = broker
        self._store = store  # None for an ephemeral topic
        self._far: set[int] = set()
        self._loading: Iterator[DeferredRecord] | None = None
        self._loading_bucket = -1
        self._loading_from = self._loading_upto = 0  # serials that are still to be brought into memory
        self._timer = Timer(self._load_near)
        self.dropped: list[tuple[int, int]] = []  # serials (from, up to) of what was to be for all and is for nobody
        # Published while the topic does not flow, from this serial on: for the channels there will be then.
        self.waiting_from = self.next_serial
        self._waiting: list[tuple[int, Batch]] = []  # due_ns, and what is due
        self._waiting_count = 0  # messages in it
        self._waiting_far: dict[int, int] = {}  # bucket to messages

    @property
    def next_serial(self) -> int:
        """The serial of the next message that is kept."""
        return self._store.next_serial if self._store else 0

    @property
    def first_serial(self) -> int:
        """From which serial on what is published is a new channel's: what waits for the topic to flow is."""
        return self.next_serial if self._topic.flowing else self.waiting_from

    @property
    def waiting_count(self) -> int:
        """How many messages wait for the topic to flow."""
        return self._waiting_count + sum(self._waiting_far.values())

    # -- messages in ---------------------------------------------------------------------------------------------

    def publish(self, due_ns: int, batch: Batch, *, keep: bool) -> None:
        """Hold new messages back for every channel. Raises StorageError, and then they are not published."""
        batch.position, bucket = self._keep("", due_ns, batch, keep=keep)
        if self._topic.flowing:
            for channel in self._topic.channels.values():
                channel.message_count += batch.count
                self._hold(channel, due_ns, batch, bucket)
        elif bucket < 0:
            if self._store is None:  # as in Topic._wait
                batch = batch.first(min(batch.count, max(0, self._broker.memory_limit - self._topic.depth)))
            self._wait(due_ns, batch)
        else:
            _count_up(self._waiting_far, bucket, batch.count)

    def requeue(self, channel: "Channel", due_ns: int, batch: Batch, *, keep: bool) -> None:
        """Hold messages of one channel back. Raises StorageError, and then nothing has changed."""
        batch.position, bucket = self._keep(channel.name, due_ns, batch, keep=keep)
        self._hold(channel, due_ns, batch, bucket)

    def _wait(self, due_ns: int, batch: Batch) -> None:
        if batch.count:
            self._waiting.append((due_ns, batch))
            self._waiting_count += batch.count

    def _keep(self, channel: str, due_ns: int, batch: Batch, *, keep: bool) -> tuple[int, int]:
        """Put messages on disk; return their position, and their bucket if that is far, else -1."""
        if not keep or self._store is None:
            return -1, -1
        due_wall_ns = self._broker.log_ns(due_ns)
        position = self._store.append(channel, due_wall_ns, batch.frames, batch.count)
        bucket = bucket_of(due_wall_ns)
        return position, bucket if self._is_far(bucket) else -1

    def _is_far(self, bucket: int) -> bool:
        if bucket not in self._far:
            if bucket <= self._near_bucket():
                return False
            self._far.add(bucket)
            self._broker.timers.schedule(self._timer, self._load_at_ns(bucket))
        return True

    @staticmethod
    def _hold(channel: "Channel", due_ns: int, batch: Batch, bucket: int) -> None:
        if bucket < 0:
            channel.hold(due_ns, batch)
        else:
            _count_up(channel.deferred.far, bucket, batch.count)

    # -- the topic starts and stops to flow ----------------------------------------------------------------------

    def flow(self) -> None:
        """Give what waits to the channels there are."""
        for channel in self._topic.channels.values():
            channel.message_count += self.waiting_count
            for due_ns, batch in self._waiting:
                channel.hold(due_ns, batch)
            for bucket, count in self._waiting_far.items():
                _count_up(channel.deferred.far, bucket, count)
        self.stop()

    def stop(self) -> None:
        """Nothing waits; what is published from here on does, if the topic does not flow."""
        self._waiting.clear()
        self._waiting_count = 0
        self._waiting_far.clear()
        self.waiting_from = self.next_serial

    def drop_waiting(self) -> None:
        """Nobody gets what waits for the topic to flow."""
        if self.waiting_count:
            self.dropped.append((self.waiting_from, self.next_serial))
        self.stop()

    # -- from disk to memory -------------------------------------------------------------------------------------

    def _near_bucket(self) -> int:
        return bucket_of(self._broker.log_ns(self._broker.now_ns)) + 1

    def _load_at_ns(self, bucket: int) -> int:
        return max(self._broker.from_log_ns(bucket_start_ns(bucket - 1)), 1)

    def _load_near(self, now_ns: int) -> int:
        """Bring the next records of a bucket that has come near into memory; return when to go on."""
        if self._loading is None:
            if not self._far:
                return 0
            bucket = min(self._far)
            if self._load_at_ns(bucket) > now_ns:
                return self._load_at_ns(bucket)
            self._far.remove(bucket)
            self._loading_bucket = bucket
            # What is deferred into this bucket from now on goes to memory by itself.
            self._loading_from, self._loading_upto = 0, self.next_serial
            self._loading = self._rest_of_bucket()
        try:
            count = 0
            while count < _LOAD_AT_ONCE:
                record = next(self._loading, None)
                if record is None:
                    self._end_load()
                    return now_ns + 1
                self._place(record, self._loading_bucket)
                self._loading_from = record.serial + 1
                count += len(record.ids)
        except StorageError as error:
            self._broker.report_failure(self._topic, error)
            self._loading = self._rest_of_bucket()
            return now_ns + READ_AGAIN_NS
        return now_ns + _LOAD_PAUSE_NS

    def _rest_of_bucket(self) -> Iterator[DeferredRecord]:
        assert self._store is not None  # noqa: S101 - only what is stored can be far
        records = self._store.load(self._loading_bucket, self._loading_from)
        return takewhile(lambda record: record.serial < self._loading_upto, records)

    def _end_load(self) -> None:
        self._loading = None
        self._waiting_far.pop(self._loading_bucket, None)
        for channel in self._topic.channels.values():
            channel.deferred.far.pop(self._loading_bucket, None)
        self._loading_bucket = -1

    def _place(self, record: DeferredRecord, bucket: int, came_back: Mapping[tuple[str, bytes], int] = _NONE) -> None:
        """Put a record into memory for those who own it, but for what is said to be elsewhere."""
        due_ns = self._broker.from_log_ns(record.due_wall_ns)
        batch = Batch(record.ids, record.frames, record.position, fresh=False)
        if self._waits(record):
            self._wait(due_ns, batch)
            _count_down(self._waiting_far, bucket, batch.count)
            return
        at = record.position
        for channel in self._owners(record):
            here = [one for one in batch.ids if came_back.get((channel.name, one), at) == at]
            if here:
                channel.hold(due_ns, batch.only(here))
            _count_down(channel.deferred.far, bucket, batch.count)

    def _waits(self, record: DeferredRecord) -> bool:
        return not record.channel and not self._topic.flowing and record.serial >= self.waiting_from

    def _owners(self, record: DeferredRecord) -> "list[Channel]":
        channels = self._topic.channels
        if record.channel:
            named = channels.get(record.channel)
            return [named] if named and named.deferred.own_from <= record.serial else []
        if any(first <= record.serial < end for first, end in self.dropped):
            return []
        return [channel for channel in channels.values() if channel.deferred.from_serial <= record.serial]

    # -- restart and retention -----------------------------------------------------------------------------------

    def recover(self, state: Mapping[str, Any], came_back: Mapping[tuple[str, bytes], int]) -> None:
        """Hold again what is on disk and was not due by the checkpoint ``state``; what was due is owed by name.

        If the topic did not flow then, nobody had been given what waited on it. What is far is counted there, and only
        what came later is read. ``came_back`` is (channel, message id) to position: those were delivered since, and
        are there now. Raises StorageError.
        """
        if self._store is None:
            return
        waited_from = state["waiting_from"] if state["stop"] else self.next_serial
        buckets = {bucket: self._is_far(bucket) for bucket in self._store.buckets()}
        counted_to = state["serial"] if "waiting_far" in state else 0
        if counted_to > self._store.first_serial:  # else all that was counted is gone
            self._recover_far(state, {bucket for bucket, far in buckets.items() if far})
        due_after_ns = -1 if state["stop"] else state["released"]
        for bucket, far in buckets.items():
            for record in self._store.load(bucket, counted_to if far else 0, due_after_ns):
                if far:
                    self._count_up(record, bucket)
                elif record.due_wall_ns > state["released"] or (not record.channel and record.serial >= waited_from):
                    self._place(record, bucket, came_back)

    def _recover_far(self, state: Mapping[str, Any], far: set[int]) -> None:
        waiting = {bucket: count for bucket, count in state["waiting_far"] if bucket in far}
        for channel in self._topic.channels.values():
            known = state["channels"].get(channel.name, {"far": []})
            channel.deferred.far = {bucket: count for bucket, count in known["far"] if bucket in far}
            for bucket, count in waiting.items() if self._topic.flowing else ():
                _count_up(channel.deferred.far, bucket, count)
        if not self._topic.flowing:
            self._waiting_far = waiting

    def _count_up(self, record: DeferredRecord, bucket: int) -> None:
        if self._waits(record):
            _count_up(self._waiting_far, bucket, len(record.ids))
            return
        for channel in self._owners(record):
            _count_up(channel.deferred.far, bucket, len(record.ids))

    def far_waiting(self) -> list[tuple[int, int]]:
        """Return (bucket, messages) of what waits for the topic to flow and is only on disk."""
        return list(self._waiting_far.items())

    def requeued_since(self, serial: int) -> Iterator[DeferredRecord]:
        """Yield what single channels gave back from ``serial`` on. Raises StorageError."""
        if self._store is None:
            return
        for bucket in self._store.buckets():
            for record in self._store.load(bucket, serial):
                if record.channel:
                    yield record

    def fetch(self, position: int, ids: list[bytes]) -> dict[bytes, bytes]:
        """Return the frames of ``ids`` at ``position``, as far as they are there."""
        return self._store.fetch(position, ids) if self._store else {}

    def keep_in_memory_ones(self) -> None:
        """Put what is only in memory on disk: the node stops. Raises StorageError."""
        if self._store is None:
            return
        for due_ns, batch in self._waiting:
            if batch.position < 0:
                _, bucket = self._keep("", due_ns, batch, keep=True)
                if bucket >= 0:
                    _count_up(self._waiting_far, bucket, batch.count)
        for channel in self._topic.channels.values():
            for due_ns, batch in [] if channel.ephemeral else channel.deferred.in_memory():
                _, bucket = self._keep(channel.name, due_ns, batch, keep=True)
                if bucket >= 0:
                    _count_up(channel.deferred.far, bucket, batch.count)

    def release(self, in_use: set[int]) -> None:
        """Drop the buckets whose time is over, but for those that somebody still owes a message of."""
        if self._store is None:
            return
        current = bucket_of(self._broker.log_ns(self._broker.now_ns))
        for bucket in self._store.buckets():
            if bucket >= current:
                break
            if (
                bucket not in in_use
                and bucket not in self._far
                and bucket != self._loading_bucket
                and not self._waiting
            ):
                self._store.drop(bucket)
        if self.dropped:
            first_serial = self._store.first_serial
            self.dropped = [one for one in self.dropped if one[1] > first_serial]

    def sync(self) -> None:
        """Bring what was kept to the disk itself. Raises StorageError."""
        if self._store is not None:
            self._store.sync()

    def close(self) -> None:
        """Let go of the files."""
        self._broker.timers.cancel(self._timer)
        if self._store is not None:
            self._store.close()


def _count_up(counts: dict[int, int], bucket: int, by: int) -> None:
    counts[bucket] = counts.get(bucket, 0) + by


def _count_down(counts: dict[int, int], bucket: int, by: int) -> None:
    if bucket in counts:
        counts[bucket] -= by
