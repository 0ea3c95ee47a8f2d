"""What waits for the consumers of a channel: in memory as far as there is room, behind that in the log. Hot."""

from collections import deque
from typing import TYPE_CHECKING, Final

from pynsqd.core.batch import Batch
from pynsqd.core.consumer import MAX_UNWRITTEN
from pynsqd.core.log import READ_AGAIN_NS
from pynsqd.core.timers import Timer
from pynsqd.wire.encoder import skip_frames, skip_within, split_frames
from pynsqd.wire.errors import StorageError

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.topic import Topic

# How much of the log a channel that is behind takes into memory at a time, in bytes.
_READ_AHEAD: Final = 1 << 18
# So many messages are read for each consumer that waits, if there are many.
_WORTH_A_WRITE: Final = 16


class Backlog:
    """The batches that wait for one channel, in order, and the cursor into the log behind them.

    New batches are kept in memory as far as the limits allow. Past them the backlog is *behind*: it holds a position
    instead, and reads on from there when it has room.
    """

    __slots__ = (
        "_behind_sequence",
        "_broker",
        "_bytes",
        "_head",
        "_holes",
        "_offset",
        "_ready",
        "_superseded",
        "_timer",
        "_topic",
        "behind_at",
        "count",
    )

    def __init__(self, topic: "Topic", broker: "Broker", timer: Timer) -> None:
        """Begin with nothing; ``timer`` is set where the log could not be read and is to be tried again."""
        self._topic = topic
        self._broker = broker
        self._timer = timer
        self._ready: deque[Batch] = deque()
        self.count = 0  # messages in _ready, and the bytes of their frames
        self._bytes = 0
        self._head = 0  # messages of _ready[0] that are gone already, and the offset of the next in its frames
        self._offset = 0
        self.behind_at = -1  # where in the log to read on, -1 if everything that waits is in memory
        self._behind_sequence = 0  # the number of the message there
        self._superseded: set[bytes] = set()  # see ``resume``
        self._holes: list[tuple[int, list[bytes]]] = []  # see ``superseded_ahead``

    @property
    def depth(self) -> int:
        """Messages that wait: in memory, and in the log behind the cursor."""
        return self.count + self._behind

    @property
    def next_published_ns(self) -> int:
        """When the message was published that is next to be delivered, in ns since the epoch; 0 if none waits."""
        if self.count:
            return self._ready[0].timestamp_ns(self._offset)
        return self._topic.published_ns(self.behind_at) if self._behind > 0 else 0

    @property
    def _behind(self) -> int:
        """Messages that wait in the log only."""
        if self.behind_at < 0:
            return 0
        dropped = self._topic.dropped.count(self._behind_sequence)
        return self._topic.read_limit[1] - self._behind_sequence - dropped - len(self._superseded)

    # -- messages in ---------------------------------------------------------------------------------------------

    def has_room(self, count: int) -> bool:
        """Tell whether ``count`` more messages may be kept in memory."""
        return (
            self.behind_at < 0
            and self.count + count <= self._broker.memory_limit
            and self._broker.buffered_bytes < self._broker.memory_bytes
        )

    def add(self, batch: Batch) -> None:
        """Keep ``batch`` in memory, behind what is there already."""
        self._ready.append(batch)
        self.count += batch.count
        self._bytes += batch.size
        self._broker.buffered_bytes += batch.size

    def fall_behind(self, batch: Batch, coming: int) -> None:
        """Leave ``batch``, which is in the log with ``coming`` messages behind it, there, and what comes later too."""
        self.behind_at = batch.position
        self._behind_sequence = self._topic.read_limit[1] - coming - batch.count

    def catch_up(self, position: int, sequence: int) -> None:
        """Read the log from ``position`` on, unless the cursor is before that anyway."""
        if self.behind_at < 0 and position < self._topic.read_limit[0]:
            self.behind_at = position
            self._behind_sequence = sequence

    def read_what_fits(self) -> None:
        """Read on as far as there is room for it, and leave the rest of the log to others."""
        while self.count < self._broker.memory_limit and self.read_on():
            pass
        self.behind_at = -1

    def read_for(self, consumers: int) -> None:
        """Read on until each of so many consumers can be given some, as far as memory allows.

        A part of the log divided among a thousand would be cut into single messages, and each cost a write.
        """
        broker = self._broker
        enough = max(1, min(consumers * _WORTH_A_WRITE, broker.memory_limit))
        while self.count < enough and (not self.count or broker.buffered_bytes < broker.memory_bytes):
            if not self.read_on():
                return

    def read_on(self) -> bool:
        """Take the next part of the log into memory; tell whether there was one."""
        topic = self._topic
        stop, _ = topic.read_limit
        while 0 <= self.behind_at < stop:
            try:
                batches, self.behind_at, self._behind_sequence = topic.read(self.behind_at, stop, _READ_AHEAD)
            except StorageError as error:
                self._broker.report_failure(topic, error)
                self._broker.timers.schedule(self._timer, self._broker.now_ns + READ_AGAIN_NS)
                return False
            if self.behind_at >= stop and topic.flowing:
                self.behind_at = -1
            before = self.count
            add = self._add_in_turn if self._superseded else self.add
            for batch in batches:
                add(batch)
            if self.count > before:
                return True
        if topic.flowing:
            self.behind_at = -1
        return False

    def _add_in_turn(self, batch: Batch) -> None:
        """Keep ``batch`` without what came back to the channel after the last checkpoint: that is owed by name."""
        if self._superseded.isdisjoint(batch.ids):
            self.add(batch)
            return
        keep = [one for one in batch.ids if one not in self._superseded]
        self._superseded.difference_update(batch.ids)
        self._holes.append((batch.position, batch.ids))
        if keep:
            self.add(batch.only(keep))

    # -- messages out --------------------------------------------------------------------------------------------

    def take(self, count: int) -> Batch:
        """Take up to ``count`` messages from the first batch: the whole batch as it is, or a cut of it."""
        batch = self._ready[0]
        frames = batch.frames
        start, begin = self._head, self._offset
        left = batch.count - start
        end = 0
        if len(frames) - begin > MAX_UNWRITTEN:  # big messages: about that many bytes, not that many messages
            count, end = skip_within(frames, begin, min(count, left), MAX_UNWRITTEN)
        if count < left:
            self._head += count
            self._offset = end or skip_frames(frames, begin, count)
            batch = Batch(
                batch.ids[start : self._head], frames[begin : self._offset], batch.position, fresh=batch.fresh
            )
        else:
            self._ready.popleft()
            if start:
                batch = Batch(batch.ids[start:], frames[self._offset :], batch.position, fresh=batch.fresh)
                self._head = self._offset = 0
        self.count -= batch.count
        self._bytes -= batch.size
        self._broker.buffered_bytes -= batch.size
        return batch

    def clear(self) -> None:
        """Drop what waits. What the topic keeps is not the channel's yet; what it has released is dropped."""
        self._broker.buffered_bytes -= self._bytes
        self._ready.clear()
        self._head = self._offset = self.count = self._bytes = 0
        self.behind_at = -1
        if not self._topic.flowing:
            self.behind_at, self._behind_sequence = self._topic.read_limit
        self._superseded.clear()
        self._holes.clear()

    def skip_dropped(self, position: int) -> None:
        """The topic has dropped what it kept from ``position`` on."""
        if self.behind_at >= position:
            self.behind_at, self._behind_sequence = self._topic.read_limit

    # -- restart -------------------------------------------------------------------------------------------------

    def cursor(self) -> tuple[int, int]:
        """Return (position, messages to skip there): everything from there on has not been handed out yet."""
        for index, batch in enumerate(self._ready):
            if batch.fresh and batch.position >= 0:
                return batch.position, batch.skipped + (0 if index else self._head)
        return (self.behind_at if self.behind_at >= 0 else self._topic.read_limit[0]), 0

    def owed_by_name(self) -> list[tuple[int, list[bytes], list[bytes]]]:
        """Return what waits in memory and the cursor says nothing about: (position, ids, frames)."""
        groups = []
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
        return self._superseded.union(*(ids for _, ids in self._holes))

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
        for batch in owed:
            self.add(batch)
        self._superseded = superseded
        stop, sequence = self._topic.read_limit
        self.behind_at = position
        self._behind_sequence = sequence
        if position < stop:
            self._skip(skip, stop)
        elif self._topic.flowing:
            self.behind_at = -1

    def _skip(self, count: int, stop: int) -> None:
        """Take the batch at the cursor into memory without its first ``count`` messages.

        Those that are damaged by now count, too: others must not be skipped in their place.
        """
        topic = self._topic
        position = self.behind_at
        batches, self.behind_at, self._behind_sequence = topic.read(position, stop, 1)
        if batches and batches[0].position != position:
            count = 0  # what was handed out of the damaged ones is not known
        while True:
            for batch in batches:
                dropped = min(count, len(batch.ids))
                count -= dropped
                rest = batch.after(dropped)
                if rest.ids:
                    self._add_in_turn(rest)
            if not count or self.behind_at >= stop:
                break
            before = self._behind_sequence + topic.dropped.count(self._behind_sequence)
            batches, self.behind_at, self._behind_sequence = topic.read(self.behind_at, stop, 1)
            behind = self._behind_sequence + topic.dropped.count(self._behind_sequence)
            count = max(0, count - (behind - before - sum(len(batch.ids) for batch in batches)))
        if self.behind_at >= stop and topic.flowing:
            self.behind_at = -1
