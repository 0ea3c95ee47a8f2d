"""A channel: what waits for its consumers, and the consumers that wait for it. Hot."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from pynsqd.core.batch import Batch
from pynsqd.core.consumer import MAX_UNWRITTEN, Consumer
from pynsqd.core.deferred import Deferred
from pynsqd.core.latency import LatencyWindow
from pynsqd.core.timers import Timer
from pynsqd.wire.encoder import message_id, skip_frames
from pynsqd.wire.names import is_ephemeral

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.topic import Topic


class Channel:
    """Gets every message of its topic and gives each to one of its consumers."""

    __slots__ = (
        "_broker",
        "_head",
        "_offset",
        "_ready",
        "_timer",
        "_waiting",
        "consumers",
        "deferred",
        "depth",
        "ephemeral",
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
        self._ready: deque[Batch] = deque()
        self._head = 0  # messages of _ready[0] that are gone already, and the offset of the next in its frames
        self._offset = 0
        self._timer = Timer(self._release_deferred)
        self._waiting: deque[Consumer] = deque()  # consumers with a window, longest wait first
        self.consumers: dict[Consumer, Callable[[], None]] = {}  # to what closes its connection
        self.deferred = Deferred()
        self.depth = 0  # messages in _ready
        self.ephemeral = is_ephemeral(name)
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

    def put(self, batch: Batch) -> None:
        """Take a batch that the topic hands to each of its channels."""
        self.message_count += len(batch)
        self._enqueue(batch)

    def put_deferred(self, due_ns: int, frame: bytes) -> None:
        """Take a message that was published with a delay."""
        self.message_count += 1
        self.defer(due_ns, frame)

    def put_back(self, frames: list[bytes]) -> None:
        """Append messages that come again, framed for their next delivery."""
        self._enqueue(Batch([message_id(frame) for frame in frames], b"".join(frames)))

    def defer(self, due_ns: int, frame: bytes) -> None:
        """Hold a message back until ``due_ns``."""
        self.deferred.add(due_ns, frame)
        self.timers.schedule(self._timer, due_ns)

    def _enqueue(self, batch: Batch) -> None:
        if self.ephemeral or self.topic.ephemeral:
            # No disk behind it: what does not fit is dropped, and the publisher is not told (PROTOCOL 1.16).
            room = self._broker.memory_limit - self.depth
            if room < len(batch):
                if room <= 0:
                    return
                batch = batch.first(room)
        self._ready.append(batch)
        self.depth += len(batch)
        self._broker.dirty[self] = None

    def _release_deferred(self, now_ns: int) -> int:
        frames = self.deferred.take_due(now_ns)
        if frames:
            self.put_back(frames)
        return self.deferred.next_due_ns

    # -- messages out --------------------------------------------------------------------------------------------

    def wake(self, consumer: Consumer) -> None:
        """Something changed that may let ``consumer`` take messages."""
        if not consumer.waiting and consumer.window > 0:
            consumer.waiting = True
            self._waiting.append(consumer)
            self._broker.dirty[self] = None

    def deliver(self, now_ns: int) -> None:
        """Give what is ready to the consumers that wait, in turn, each an equal share of it."""
        if self.paused:
            return
        waiting = self._waiting
        while self.depth and waiting:
            consumer = waiting.popleft()
            window = consumer.window
            if window > 0:
                share = -(-self.depth // (len(waiting) + 1))
                ids, frames = self._take(min(window, share))
                consumer.deliver(ids, frames, now_ns)
                if consumer.window > 0:
                    waiting.append(consumer)
                    continue
            consumer.waiting = False

    def _take(self, count: int) -> tuple[list[bytes], bytes]:
        """Take up to ``count`` messages from the first batch: the whole batch as it is, or a cut of it."""
        batch = self._ready[0]
        ids, frames = batch.ids, batch.frames
        if len(frames) > MAX_UNWRITTEN:  # big messages: about that many bytes, not that many messages
            count = min(count, max(1, MAX_UNWRITTEN * len(ids) // len(frames)))
        start = self._head
        left = len(ids) - start
        if count < left:
            begin = self._offset
            self._head += count
            self._offset = skip_frames(frames, begin, count)
            self.depth -= count
            return ids[start : self._head], frames[begin : self._offset]
        self._ready.popleft()
        self.depth -= left
        if start:
            ids, frames = ids[start:], frames[self._offset :]
            self._head = self._offset = 0
        return ids, frames

    # -- consumers -----------------------------------------------------------------------------------------------

    def subscribe(self, consumer: Consumer, close: Callable[[], None]) -> None:
        """Add a consumer; ``close`` ends its connection when the channel goes."""
        self.consumers[consumer] = close

    def remove(self, consumer: Consumer) -> None:
        """Forget a consumer. An ephemeral channel goes with its last one."""
        self.consumers.pop(consumer, None)
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

    def pause(self) -> None:
        """Stop deliveries; FIN, REQ, TOUCH and timeouts go on."""
        self.paused = True
        self._broker.note("paused", self.topic.name, self.name)

    def unpause(self) -> None:
        """Deliver again."""
        self.paused = False
        self._broker.dirty[self] = None
        self._broker.note("paused", self.topic.name, self.name)

    def empty(self) -> None:
        """Drop everything: what waits, is deferred or in flight (PROTOCOL 1.11)."""
        self._ready.clear()
        self._head = self._offset = self.depth = 0
        self.deferred.clear()
        for consumer in self.consumers:
            consumer.in_flight.clear()
            self.wake(consumer)

    def close(self) -> None:
        """Let go of everything and end the connections of the consumers; the channel is gone."""
        self.timers.cancel(self._timer)
        self._broker.dirty.pop(self, None)
        closing = list(self.consumers.items())
        self.consumers.clear()
        self.empty()
        for consumer, close in closing:
            consumer.in_flight.clear()
            close()
