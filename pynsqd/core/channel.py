"""A channel: what waits for its consumers, and the consumers that wait for it. Hot."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from pynsqd.core.backlog import Backlog
from pynsqd.core.batch import Batch
from pynsqd.core.consumer import Consumer
from pynsqd.core.deferred import Deferred
from pynsqd.core.in_flight import Delivery
from pynsqd.core.latency import LatencyWindow
from pynsqd.core.timers import Timer
from pynsqd.wire.encoder import next_attempt, timestamp_ns
from pynsqd.wire.errors import StorageError
from pynsqd.wire.names import is_ephemeral

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.topic import Topic


class Channel:
    """Gets every message of its topic and gives each to one of its consumers.

    It is a cursor into the topic's log with what waits there (its backlog), and what it still owes of what is before.
    """

    __slots__ = (
        "_broker",
        "_returned",
        "_timer",
        "_waiting",
        "backlog",
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
        "timeout_count",
        "timers",
        "topic",
    )

    def __init__(self, topic: "Topic", name: str, broker: "Broker", now_ns: int) -> None:
        self._broker = broker
        self._returned: list[tuple[bytes, Delivery]] = []  # what came back in this turn
        self._timer = Timer(self._on_timer)
        self._waiting: deque[Consumer] = deque()  # consumers with a window, longest wait first
        self.backlog = Backlog(topic, broker, self._timer)
        self.consumers: dict[Consumer, Callable[[], None]] = {}  # to what closes its connection
        self.deferred = Deferred(topic.deferrals.first_serial, topic.deferrals.next_serial)
        self.ephemeral = is_ephemeral(name)
        self.gone_finish_count = 0  # of consumers that have left
        self.gone_message_count = 0
        self.max_msg_timeout_ns = broker.options.max_msg_timeout_ns
        self.message_count = 0
        self.name = name
        self.paused = False
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
        return self.backlog.depth + len(self._returned)

    @property
    def backend_depth(self) -> int:
        """How many of them are beyond what nsqd would keep in memory."""
        return max(0, self.depth - self._broker.memory_limit) if self.backlog.behind_at >= 0 else 0

    @property
    def next_published_ns(self) -> int:
        """When the message was published that is next to be delivered, in ns since the epoch; 0 if none waits."""
        if self._returned and not self.backlog.count:
            message, delivery = self._returned[0]
            return timestamp_ns(delivery.frame(message))
        return self.backlog.next_published_ns

    def put(self, batch: Batch, coming: int = 0) -> None:
        """Take a batch that the topic hands to each of its channels; as many as ``coming`` messages come behind it."""
        self.message_count += batch.count
        if batch.position < 0 or self.ephemeral:
            self._keep(batch)
        elif self.backlog.has_room(batch.count):
            self.backlog.add(batch)
        elif self.backlog.behind_at < 0:
            self.backlog.fall_behind(batch, coming)
        if self._waiting:
            self._broker.dirty[self] = None

    def _keep(self, batch: Batch) -> None:
        """Take a batch without a log behind it: for an ephemeral one what does not fit is dropped (PROTOCOL 1.16)."""
        if self.ephemeral or self.topic.ephemeral:
            room = self._broker.memory_limit - self.backlog.count
            if room < batch.count:
                if room <= 0:
                    return
                batch = batch.first(room)
        self.backlog.add(batch)

    def catch_up(self, position: int, sequence: int) -> None:
        """The topic flows again: read what it has kept from ``position``, unless the cursor is before that anyway."""
        self.message_count += self.topic.read_limit[1] - sequence
        self.backlog.catch_up(position, sequence)
        if self.ephemeral:  # it has no claim on the log: what fits now, and no more
            self.backlog.read_what_fits()
        self._broker.dirty[self] = None

    # -- messages that come again --------------------------------------------------------------------------------

    def put_back(self, messages: list[tuple[bytes, Delivery]]) -> None:
        """Take back messages to be delivered again; at the end of the turn they go to the log in one piece."""
        self._returned += messages
        self._broker.dirty[self] = None

    def defer(self, due_ns: int, messages: dict[bytes, Delivery]) -> None:
        """Hold messages back until ``due_ns``. Raises StorageError."""
        frames = [next_attempt(delivery.frame(one)) for one, delivery in messages.items()]
        batch = Batch(list(messages), b"".join(frames), fresh=False)
        self.topic.defer(self, due_ns, batch, max(delivery.position for delivery in messages.values()))

    def hold(self, due_ns: int, batch: Batch) -> None:
        """Keep deferred messages in memory until they are due."""
        self.deferred.add(due_ns, batch)
        self.timers.schedule(self._timer, due_ns)

    def _on_timer(self, now_ns: int) -> int:
        self._broker.dirty[self] = None  # something is due, or the log could not be read and is tried again
        for batch in self.deferred.take_due(now_ns):
            self.backlog.add(batch)
        return self.deferred.next_due_ns

    def _log_returned(self) -> None:
        """Queue what came back, behind the part of the log that is next: one bad message must not hold up the rest."""
        backlog = self.backlog
        returned, self._returned = self._returned, []
        if not backlog.count:
            backlog.read_on()
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
                backlog.add(Batch([one], frame, delivery.position, fresh=False))
            return
        backlog.add(Batch(ids, joined, position, fresh=False))

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
        backlog = self.backlog
        while waiting:
            if backlog.behind_at >= 0:
                backlog.read_for(len(waiting))
            if not backlog.count:
                break
            consumer = waiting.popleft()
            share = -(-backlog.count // (len(waiting) + 1))
            window = consumer.window
            while share > 0 and window > 0:
                batch = backlog.take(min(window, share))
                consumer.deliver(batch, now_ns)
                share -= batch.count
                window = consumer.window
            if window > 0:
                waiting.append(consumer)
            else:
                consumer.waiting = False

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
        self.backlog.skip_dropped(position)

    def _forget(self) -> None:
        self.backlog.clear()
        self._returned.clear()
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
        return groups + self.backlog.owed_by_name()

    def resume(self, position: int, skip: int, owed: list[Batch], superseded: set[bytes]) -> None:
        """Stand where a checkpoint says: what is ``owed`` comes first, then the log from ``position``.

        ``superseded`` lies ahead in the log, but was handed out after the checkpoint and came back: it is owed by name.
        """
        self._forget()
        self.backlog.resume(position, skip, owed, superseded)
        if self.backlog.count:
            self._broker.dirty[self] = None
