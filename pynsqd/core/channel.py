"""A channel: what waits for its consumers, and the consumers that wait for it. Hot."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pynsqd.core.batch import Batch
from pynsqd.core.consumer import MAX_UNWRITTEN, Consumer
from pynsqd.core.deferred import Deferred
from pynsqd.core.in_flight import Delivery
from pynsqd.core.latency import LatencyWindow
from pynsqd.core.log import READ_AGAIN_NS
from pynsqd.core.timers import Timer
from pynsqd.wire.encoder import next_attempt, skip_frames, skip_within, split_frames, timestamp_ns
from pynsqd.wire.errors import StorageError
from pynsqd.wire.names import is_ephemeral

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.topic import Topic

# How much of the log a channel that is behind takes into memory at a time, in bytes.
_READ_AHEAD: Final = 1 << 18
# So many messages are read for each consumer that waits, if there are many.
_WORTH_A_WRITE: Final = 16


class Channel:
    """Gets every message of its topic and gives each to one of its consumers.

    It is a cursor into the topic's log, and what it still owes. New batches are kept in memory as far as the limits
    allow; past them the channel is *behind*, holds a position instead, and reads on from there when it has room.
    """

    __slots__ = (
        "_behind_at",
        "_behind_sequence",
        "_broker",
        "_bytes",
        "_count",
        "_head",
        "_holes",
        "_offset",
        "_ready",
        "_returned",
        "_timer",
        "_waiting",
        "consumers",
        "deferred",
        "ephemeral",
        "gone_finish_count",
        "gone_message_count",
        "latency",
        "max_msg_timeout_ns",
        "message_count",
        "name",
        "paused",
        "requeue_count",
        "superseded",
        "timeout_count",
        "timers",
        "topic",
    )

    def __init__(self, topic: "Topic", name: str, broker: "Broker", now_ns: int) -> None:
        self._broker = broker
        self._ready: deque[Batch] = deque()
        self._count = 0  # messages in _ready, and the bytes of their frames
        self._bytes = 0
        self._head = 0  # messages of _ready[0] that are gone already, and the offset of the next in its frames
        self._offset = 0
        self._holes: list[tuple[int, list[bytes]]] = []  # see ``superseded_ahead``
        self._behind_at = -1  # where in the log to read on, -1 if everything that waits is in memory
        self._behind_sequence = 0  # the number of the message there
        self._returned: list[tuple[bytes, Delivery]] = []  # what came back in this turn
        self._timer = Timer(self._on_timer)
        self._waiting: deque[Consumer] = deque()  # consumers with a window, longest wait first
        self.consumers: dict[Consumer, Callable[[], None]] = {}  # to what closes its connection
        self.deferred = Deferred(topic.deferrals.first_serial, topic.deferrals.next_serial)
        self.ephemeral = is_ephemeral(name)
        self.gone_finish_count = 0  # of consumers that have left
        self.gone_message_count = 0
        self.max_msg_timeout_ns = broker.options.max_msg_timeout_ns
        self.message_count = 0
        self.name = name
        self.paused = False
        self.superseded: set[bytes] = set()  # see ``resume``
        self.requeue_count = 0
        self.timeout_count = 0
        self.timers = broker.timers
        self.topic = topic
        self.latency: LatencyWindow | None = None
        if broker.options.e2e_processing_latency_percentiles:
            self.latency = LatencyWindow(broker.options.e2e_processing_latency_window_time_ns, now_ns)

    def wall_ns(self, now_ns: int) -> int:
        """Return the time of day at ``now_ns``, in ns since the epoch."""
        return self._broker.wall_ns(now_ns)

    # -- messages in ---------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Messages that wait: in memory, and in the log behind the cursor."""
        return self._count + len(self._returned) + self._behind

    @property
    def backend_depth(self) -> int:
        """How many of them are beyond what nsqd would keep in memory."""
        return max(0, self.depth - self._broker.memory_limit) if self._behind_at >= 0 else 0

    @property
    def next_published_ns(self) -> int:
        """When the message was published that is next to be delivered, in ns since the epoch; 0 if none waits."""
        if self._count:
            return timestamp_ns(self._ready[0].frames, self._offset)
        if self._returned:
            message, delivery = self._returned[0]
            return timestamp_ns(delivery.frame(message))
        return self.topic.published_ns(self._behind_at) if self._behind > 0 else 0

    @property
    def _behind(self) -> int:
        """Messages that wait in the log only."""
        if self._behind_at < 0:
            return 0
        dropped = self.topic.dropped.count(self._behind_sequence)
        return self.topic.read_limit[1] - self._behind_sequence - dropped - len(self.superseded)

    def has_room(self, count: int) -> bool:
        """Tell whether ``count`` more messages may be kept in memory."""
        return (
            self._behind_at < 0
            and self._count + count <= self._broker.memory_limit
            and self._broker.buffered_bytes < self._broker.memory_bytes
        )

    def put(self, batch: Batch, coming: int = 0) -> None:
        """Take a batch that the topic hands to each of its channels; as many as ``coming`` messages come behind it."""
        count = batch.count
        self.message_count += count
        if batch.position < 0 or self.ephemeral:
            self._keep(batch)
        elif self.has_room(count):
            self._enqueue(batch)
        else:
            if self._behind_at < 0:
                self._behind_at = batch.position
                self._behind_sequence = self.topic.read_limit[1] - coming - count
            if self._waiting:
                self._broker.dirty[self] = None

    def _keep(self, batch: Batch) -> None:
        """Take a batch without a log behind it: for an ephemeral one what does not fit is dropped (PROTOCOL 1.16)."""
        if self.ephemeral or self.topic.ephemeral:
            room = self._broker.memory_limit - self._count
            if room < len(batch.ids):
                if room <= 0:
                    return
                batch = batch.first(room)
        self._enqueue(batch)

    def _enqueue(self, batch: Batch) -> None:
        if not batch.count:
            return
        self._ready.append(batch)
        self._count += batch.count
        self._bytes += len(batch.frames)
        self._broker.buffered_bytes += len(batch.frames)
        self._broker.dirty[self] = None

    def catch_up(self, position: int, sequence: int) -> None:
        """The topic flows again: read what it has kept from ``position``, unless the cursor is before that anyway."""
        self.message_count += self.topic.read_limit[1] - sequence
        if self._behind_at >= 0 or position >= self.topic.read_limit[0]:
            self._broker.dirty[self] = None
            return
        self._behind_at = position
        self._behind_sequence = sequence
        self._broker.dirty[self] = None
        if self.ephemeral:  # it has no claim on the log: what fits now, and no more
            while self._count < self._broker.memory_limit and self._read_on():
                pass
            self._behind_at = -1

    def _read_on(self) -> bool:
        """Take the next part of the log into memory; tell whether there was one."""
        stop, _ = self.topic.read_limit
        while 0 <= self._behind_at < stop:
            try:
                batches, self._behind_at, self._behind_sequence = self.topic.read(self._behind_at, stop, _READ_AHEAD)
            except StorageError as error:
                self._broker.report_failure(self.topic, error)
                self.timers.schedule(self._timer, self._broker.now_ns + READ_AGAIN_NS)
                return False
            if self._behind_at >= stop and self.topic.flowing:
                self._behind_at = -1
            before = self._count
            for batch in batches:
                self._enqueue(self._without_superseded(batch) if self.superseded else batch)
            if self._count > before:
                return True
        if self.topic.flowing:
            self._behind_at = -1
        return False

    def _read_for(self, consumers: int) -> None:
        """Read on until each of so many consumers can be given some, as far as memory allows.

        A part of the log divided among a thousand would be cut into single messages, and each cost a write.
        """
        broker = self._broker
        enough = max(1, min(consumers * _WORTH_A_WRITE, broker.memory_limit))
        while self._count < enough and (not self._count or broker.buffered_bytes < broker.memory_bytes):
            if not self._read_on():
                return

    def _without_superseded(self, batch: Batch) -> Batch:
        """Leave out what came back to the channel after the last checkpoint: it is owed by name."""
        if self.superseded.isdisjoint(batch.ids):
            return batch
        keep = [one for one in batch.ids if one not in self.superseded]
        self.superseded.difference_update(batch.ids)
        self._holes.append((batch.position, batch.ids))
        return batch.only(keep)

    # -- messages that come again --------------------------------------------------------------------------------

    def put_back(self, messages: list[tuple[bytes, Delivery]]) -> None:
        """Take back messages to be delivered again; at the end of the turn they go to the log in one piece."""
        self._returned += messages
        self._broker.dirty[self] = None

    def defer(self, due_ns: int, frame: bytes, position: int) -> None:
        """Hold a message back that was at ``position``, until ``due_ns``. Raises StorageError."""
        self.topic.defer(self, due_ns, frame, position)

    def hold(self, due_ns: int, frame: bytes, position: int) -> None:
        """Keep a deferred message in memory until it is due."""
        self.deferred.add(due_ns, frame, position)
        self.timers.schedule(self._timer, due_ns)

    def _on_timer(self, now_ns: int) -> int:
        self._broker.dirty[self] = None  # something is due, or the log could not be read and is tried again
        for batch in self.deferred.take_due(now_ns):
            self._enqueue(batch)
        return self.deferred.next_due_ns

    def _log_returned(self) -> None:
        """Queue what came back, behind the part of the log that is next: one bad message must not hold up the rest."""
        returned, self._returned = self._returned, []
        if not self._count:
            self._read_on()
        ids = [one for one, _ in returned]
        frames = [next_attempt(delivery.frame(one)) for one, delivery in returned]
        joined = b"".join(frames)
        try:
            kept = not self.ephemeral and self.topic.keeps(max(delivery.position for _, delivery in returned))
            position = self.topic.append_owed(self.name, joined, len(ids)) if kept else -1
        except StorageError as error:
            # It is still where it was first; only the number of attempts would be forgotten by a crash now.
            self._broker.report_failure(self.topic, error)
            for one, frame, (_, delivery) in zip(ids, frames, returned, strict=True):
                self._enqueue(Batch([one], frame, delivery.position, fresh=False))
            return
        self._enqueue(Batch(ids, joined, position, fresh=False))

    # -- messages out --------------------------------------------------------------------------------------------

    def wake(self, consumer: Consumer) -> None:
        """Something changed that may let ``consumer`` take messages."""
        self._broker.dirty[self] = None
        if not consumer.waiting and consumer.window > 0:
            consumer.waiting = True
            self._waiting.append(consumer)

    def deliver(self, now_ns: int) -> None:
        """Give what is ready to the consumers that wait, in turn, each an equal share of it."""
        if self._returned:
            self._log_returned()
        if self.paused:
            return
        waiting = self._waiting
        while waiting:
            if self._behind_at >= 0:
                self._read_for(len(waiting))
            if not self._count:
                break
            consumer = waiting.popleft()
            share = -(-self._count // (len(waiting) + 1))
            window = consumer.window
            while share > 0 and window > 0:
                batch = self._take(min(window, share))
                consumer.deliver(batch, now_ns)
                share -= batch.count
                window = consumer.window
            if window > 0:
                waiting.append(consumer)
            else:
                consumer.waiting = False

    def _take(self, count: int) -> Batch:
        """Take up to ``count`` messages from the first batch: the whole batch as it is, or a cut of it."""
        batch = self._ready[0]
        ids, frames = batch.ids, batch.frames
        start, begin = self._head, self._offset
        left = len(ids) - start
        end = 0
        if len(frames) - begin > MAX_UNWRITTEN:  # big messages: about that many bytes, not that many messages
            count, end = skip_within(frames, begin, min(count, left), MAX_UNWRITTEN)
        if count < left:
            self._head += count
            self._offset = end or skip_frames(frames, begin, count)
            batch = Batch(ids[start : self._head], frames[begin : self._offset], batch.position, fresh=batch.fresh)
        else:
            self._ready.popleft()
            if start:
                batch = Batch(ids[start:], frames[self._offset :], batch.position, fresh=batch.fresh)
                self._head = self._offset = 0
        self._count -= batch.count
        self._bytes -= len(batch.frames)
        self._broker.buffered_bytes -= len(batch.frames)
        return batch

    # -- consumers -----------------------------------------------------------------------------------------------

    def subscribe(self, consumer: Consumer, close: Callable[[], None]) -> None:
        """Add a consumer; ``close`` ends its connection when the channel goes."""
        self.consumers[consumer] = close

    def remove(self, consumer: Consumer) -> None:
        """Forget a consumer. An ephemeral channel goes with its last one."""
        self.consumers.pop(consumer, None)
        self.gone_finish_count += consumer.finish_count
        self.gone_message_count += consumer.message_count
        if consumer.waiting:
            self._waiting.remove(consumer)
            consumer.waiting = False
        if self.ephemeral and not self.consumers:
            self.topic.delete_channel(self.name)

    def owner_of(self, message_id: bytes) -> Consumer | None:
        """Return the consumer that holds a message. A search: it serves error texts only."""
        for consumer in self.consumers:
            if message_id in consumer.in_flight.entries:
                return consumer
        return None

    # -- administration ------------------------------------------------------------------------------------------

    @property
    def in_flight_count(self) -> int:
        """Messages delivered and not yet finished."""
        return sum(len(consumer.in_flight) for consumer in self.consumers)

    @property
    def finish_count(self) -> int:
        """Messages finished since the start."""
        return self.gone_finish_count + sum(consumer.finish_count for consumer in self.consumers)

    @property
    def delivery_count(self) -> int:
        """Deliveries since the start, of a message that came again each."""
        return self.gone_message_count + sum(consumer.message_count for consumer in self.consumers)

    def pause(self) -> None:
        """Stop deliveries; FIN, REQ, TOUCH and timeouts go on."""
        self.paused = True
        self._broker.note("paused", self.topic.name, self.name)

    def unpause(self) -> None:
        """Deliver again."""
        self.paused = False
        self._broker.dirty[self] = None
        self._broker.note("unpaused", self.topic.name, self.name)

    def empty(self) -> None:
        """Drop everything: what waits, is deferred or in flight (PROTOCOL 1.11). A crash does not bring it back."""
        self._forget()
        for consumer in self.consumers:
            consumer.in_flight.clear()
            self.wake(consumer)
        self._broker.checkpoint_now(self.topic)

    def skip_dropped(self, position: int) -> None:
        """The topic has dropped what it kept from ``position`` on."""
        if self._behind_at >= position:
            self._behind_at, self._behind_sequence = self.topic.read_limit

    def _forget(self) -> None:
        self._broker.buffered_bytes -= self._bytes
        self._ready.clear()
        self._returned.clear()
        self._head = self._offset = self._count = self._bytes = 0
        self._behind_at = -1
        if not self.topic.flowing:  # what the topic keeps is not the channel's yet, what it has released is dropped
            self._behind_at, self._behind_sequence = self.topic.read_limit
        self.superseded.clear()
        self._holes.clear()
        self.deferred.clear(self.topic.deferrals.first_serial, self.topic.deferrals.next_serial)

    def close(self) -> None:
        """Let go of everything and end the connections of the consumers; the channel is gone."""
        self.timers.cancel(self._timer)
        self._forget()
        closing = list(self.consumers.items())
        self.consumers.clear()
        for consumer, close in closing:
            self.timers.cancel(consumer.timer)
            consumer.in_flight.clear()
            close()
        self._broker.dirty.pop(self, None)

    @property
    def in_mid_turn(self) -> bool:
        """Whether something came back that the end of the turn will put into the log."""
        return bool(self._returned)

    # -- restart -------------------------------------------------------------------------------------------------

    def cursor(self) -> tuple[int, int]:
        """Return (position, messages to skip there): everything from there on has not been handed out yet."""
        for index, batch in enumerate(self._ready):
            if batch.fresh and batch.position >= 0:
                return batch.position, batch.skipped + (0 if index else self._head)
        return (self._behind_at if self._behind_at >= 0 else self.topic.read_limit[0]), 0

    def owed(self) -> list[tuple[int, list[bytes], list[bytes] | None]]:
        """Return what was handed out before the cursor and is not finished, in groups.

        A group is (position, ids, frames as they will be delivered next); None for frames means that they were
        delivered once and are as they stand in the log.
        """
        groups: list[tuple[int, list[bytes], list[bytes] | None]] = []
        for consumer in self.consumers:
            for delivery, ids in consumer.in_flight.by_delivery():
                frames = None if delivery.fresh else [next_attempt(delivery.frame(one)) for one in ids]
                groups.append((delivery.position, ids, frames))
        # A checkpoint can come in the middle of a turn, before what came back in it is queued again.
        groups += [(delivery.position, [one], [next_attempt(delivery.frame(one))]) for one, delivery in self._returned]
        for index, batch in enumerate(self._ready):
            if not batch.fresh or batch.position < 0:
                left = batch.after(self._head) if not index and self._head else batch
                groups.append((left.position, left.ids, split_frames(left.frames)))
        return groups

    def superseded_ahead(self, position: int) -> set[bytes]:
        """Return what is owed by name although the log has it behind the cursor, which is at ``position``.

        That is what was not read yet, and what was read into memory behind fresh batches, which hold the cursor back.
        """
        self._holes = [hole for hole in self._holes if hole[0] >= position]
        return self.superseded.union(*(ids for _, ids in self._holes))

    def came_back(self) -> list[Batch]:
        """Return what waits and is not taken from the log in turn."""
        batches = self.in_memory() if self._head and not self._ready[0].fresh else self._ready
        return [batch for batch in batches if not batch.fresh]

    def in_memory(self) -> list[Batch]:
        """Return all that waits in memory, without what is handed out already."""
        if self._head:
            self._ready[0] = self._ready[0].after(self._head)
            self._head = self._offset = 0
        return list(self._ready)

    def resume(self, position: int, skip: int, owed: list[Batch], superseded: set[bytes]) -> None:
        """Stand where a checkpoint says: what is ``owed`` comes first, then the log from ``position``.

        ``superseded`` lies ahead in the log, but was handed out after the checkpoint and came back: it is owed by name.
        """
        self._forget()
        for batch in owed:
            self._enqueue(batch)
        self.superseded = superseded
        stop, sequence = self.topic.read_limit
        self._behind_at = position
        self._behind_sequence = sequence
        if position < stop:
            self._skip(skip, stop)
        elif self.topic.flowing:
            self._behind_at = -1

    def _skip(self, count: int, stop: int) -> None:
        """Take the batch at the cursor into memory without its first ``count`` messages."""
        batches, self._behind_at, self._behind_sequence = self.topic.read(self._behind_at, stop, 1)
        for batch in batches:
            dropped = min(count, len(batch.ids))
            count -= dropped
            rest = batch.after(dropped)
            if rest.ids:
                self._enqueue(self._without_superseded(rest))
        if count and self._behind_at < stop:
            self._skip(count, stop)
        elif self._behind_at >= stop and self.topic.flowing:
            self._behind_at = -1
