"""A topic: its channels, its log, and what waits until it flows. Hot."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pynsqd.core.batch import Batch
from pynsqd.core.channel import Channel
from pynsqd.core.deferred import Deferrals
from pynsqd.core.dropped import Dropped
from pynsqd.core.log import DEFERRED_BIT, FSYNC, MEMORY, DeferredStore, TopicLog
from pynsqd.core.publisher import Pending
from pynsqd.core.publishes import Publishes
from pynsqd.wire.constants import MESSAGE_HEADER
from pynsqd.wire.errors import LimitReached, StorageError
from pynsqd.wire.names import is_ephemeral

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker

_NO_LIMIT: Final = (0, 0)
_POSITIONS: Final = 64  # of which it is known when what is there was published


class Topic:
    """Takes messages and hands each to all of its channels.

    It *flows* while it has a channel, is not paused, and is not held (a new topic is, until lookupd has been asked for
    its channels). While it does not, messages wait in its log, and the channels that exist when it flows again read
    them from there. An ephemeral topic has no log; there they wait in memory.
    """

    __slots__ = (
        "_broker",
        "_published",
        "_stop",
        "_waiting",
        "_waiting_count",
        "channels",
        "deferrals",
        "dropped",
        "durability",
        "ephemeral",
        "flowing",
        "held",
        "ids_grow_from",
        "log",
        "message_bytes",
        "message_count",
        "name",
        "paused",
        "publishes",
    )

    def __init__(
        self,
        name: str,
        broker: "Broker",
        log: TopicLog | None,
        store: DeferredStore | None,
        durability: str,
        *,
        held: bool,
    ) -> None:
        self._broker = broker
        self._published: dict[int, int] = {}  # see published_ns
        self._waiting: deque[Batch] = deque()  # of an ephemeral topic
        self._waiting_count = 0
        self.channels: dict[str, Channel] = {}
        self.dropped = Dropped()
        self.durability = durability
        self.ephemeral = is_ephemeral(name)
        self.flowing = False
        self.held = held
        self.ids_grow_from = 0  # position in the log: what is before it was imported, or its checkpoint is lost
        self.log = log
        self.message_bytes = 0
        self.message_count = 0
        self.name = name
        self.paused = False
        self._stop = (log.end, log.end_sequence) if log else _NO_LIMIT  # while it does not flow
        self.deferrals = Deferrals(self, broker, store)
        self.publishes = Publishes(self, broker)

    # -- what was published --------------------------------------------------------------------------------------

    def put(self, batch: Batch, coming: int = 0) -> None:
        """Take a batch that is in the log, if it is to be, and ``coming`` more messages behind it; pass it on."""
        self.message_count += batch.count
        self.message_bytes += batch.size - batch.count * MESSAGE_HEADER
        if self.flowing:
            for channel in self.channels.values():
                channel.put(batch, coming)
        elif self.log is None:
            self._wait(batch)

    def must_log(self, count: int) -> bool:
        """Tell whether ``count`` new messages go to the log although it is not asked for: some channel has no room."""
        return not self.flowing or not all(
            channel.backlog.has_room(count) for channel in self.channels.values() if not channel.ephemeral
        )

    def appended(self, publishers: Sequence[Pending] = ()) -> None:
        """Something went to the log; with ``fsync`` the replies of ``publishers`` wait until it is on the disk."""
        broker = self._broker
        broker.changed[self] = broker.unsynced[self] = None
        if self.durability == FSYNC and publishers:
            broker.awaiting_sync.setdefault(self, []).extend(publishers)

    def _wait(self, batch: Batch) -> None:
        """Keep a batch of an ephemeral topic that does not flow, as far as there is room (PROTOCOL 1.16)."""
        room = self._broker.memory_limit - self._waiting_count
        if room < len(batch):
            batch = batch.first(max(0, room))
        if batch.ids:
            self._waiting.append(batch)
            self._waiting_count += len(batch)

    # -- the log, for the channels -------------------------------------------------------------------------------

    @property
    def read_limit(self) -> tuple[int, int]:
        """Up to where the channels may read: (position, number of messages before it)."""
        if self.log is None:
            return _NO_LIMIT
        return (self.log.end, self.log.end_sequence) if self.flowing else self._stop

    def read(self, position: int, stop: int, max_bytes: int) -> tuple[list[Batch], int, int]:
        """Read the log. Raises StorageError."""
        assert self.log is not None  # noqa: S101 - a channel is behind only where there is a log
        return self.dropped.read(self.log, position, stop, max_bytes)

    def published_ns(self, position: int) -> int:
        """When the message at ``position`` of the log was published, in ns since the epoch; 0 if it cannot be read.

        It is remembered: channels that nobody reads stay where they are, and are asked about again and again.
        """
        if position not in self._published:
            if len(self._published) >= _POSITIONS:
                self._published.clear()
            assert self.log is not None  # noqa: S101 - there are positions only where there is a log
            try:
                batches, _, _ = self.read(position, self.log.end, 1)
            except StorageError:
                return 0
            if not batches:
                return 0
            self._published[position] = batches[0].timestamp_ns()
        return self._published[position]

    def append_owed(self, channel: str, frames: bytes, count: int) -> int:
        """Put what a channel owes again into the log; returns its position. Raises StorageError."""
        assert self.log is not None  # noqa: S101 - see keeps
        position = self.log.append_owed(channel, frames, count)
        self.appended()
        return position

    def fetch(self, position: int, ids: list[bytes]) -> dict[bytes, bytes]:
        """Return the frames of ``ids``, kept at ``position`` in the log or among the deferred, as far as there."""
        if position & DEFERRED_BIT:
            return self.deferrals.fetch(position, ids)
        return self.log.fetch(position, ids) if self.log else {}

    def keeps(self, position: int) -> bool:
        """Tell whether a message goes to the disk again that was at ``position``, -1 for nowhere.

        What is there stays there: its OK promised more than one of --durability=memory does.
        """
        return self.log is not None and (position >= 0 or self.durability != MEMORY)

    def defer(self, channel: Channel, due_ns: int, batch: Batch, position: int) -> None:
        """Hold messages of one channel, up to ``position``, back until ``due_ns``. Raises StorageError."""
        keep = not channel.ephemeral and self.keeps(position)
        self.deferrals.requeue(channel, due_ns, batch, keep=keep)
        if keep:
            self.appended()

    # -- flowing -------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Messages that no channel has been given."""
        return self._logged + self._waiting_count + self.deferrals.waiting_count

    @property
    def backend_depth(self) -> int:
        """How many of them are beyond what nsqd would keep in memory."""
        return max(0, self._logged - self._broker.memory_limit)

    @property
    def next_published_ns(self) -> int:
        """When what waits longest for a channel was published, in ns since the epoch; 0 if nothing waits."""
        if self._waiting:
            return self._waiting[0].timestamp_ns()
        return self.published_ns(self._stop[0]) if self._logged > 0 else 0

    @property
    def _logged(self) -> int:
        return self.log.end_sequence - self._stop[1] if self.log is not None and not self.flowing else 0

    def _reflow(self) -> None:
        """Start or stop to flow, as channels, pause and hold say now."""
        flowing = bool(self.channels) and not self.paused and not self.held
        if flowing == self.flowing:
            return
        if not flowing:
            self._stop = self.read_limit
            self.flowing = False
            self.deferrals.stop()
            self._broker.checkpoint_now(self)  # up to here the channels were given everything, and may have finished it
            return
        self.flowing = True
        waiting, self._waiting = self._waiting, deque()
        self._waiting_count = 0
        for channel in self.channels.values():
            channel.catch_up(*self._stop)
            for batch in waiting:
                channel.put(batch)
        self.deferrals.flow()

    def stand_at(self, position: int, sequence: int, waiting_from: int) -> None:
        """After a restart: what is in the log from ``position`` on has not been given to any channel."""
        self._stop = (position, sequence)
        self.deferrals.waiting_from = waiting_from

    # -- channels ------------------------------------------------------------------------------------------------

    def channel(self, name: str) -> Channel:
        """Return the channel of that name, a new one if there is none. Raises LimitReached."""
        limit = self._broker.options.max_channels
        if limit and len(self.channels) >= limit and name not in self.channels:
            raise LimitReached("TOO_MANY_CHANNELS", f"channels of {self.name} exceed limit of {limit}")
        return self.open_channel(name)

    def open_channel(self, name: str) -> Channel:
        """Return the channel of that name, a new one if there is none, however many there are."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(self, name, self._broker, self._broker.now_ns)
            self._broker.note("channel_created", self.name, name)
            self._reflow()
        return channel

    def delete_channel(self, name: str) -> None:
        """Delete a channel with its messages and close its consumers. An ephemeral topic goes with its last channel."""
        channel = self.channels.pop(name)
        channel.close()
        self._reflow()
        self._broker.note("channel_deleted", self.name, name)
        self._broker.checkpoint_now(self)
        if self.ephemeral and not self.channels:
            self._broker.delete_topic(self.name)

    # -- administration ------------------------------------------------------------------------------------------

    def release(self) -> None:
        """End the hold of a new topic: its channels are known."""
        self.held = False
        self._reflow()

    def pause(self) -> None:
        """Keep messages on the topic; the channels go on with what they have."""
        self.paused = True
        self._reflow()
        self._broker.note("paused", self.name, "")

    def unpause(self) -> None:
        """Let messages flow again."""
        self.paused = False
        self._reflow()
        self._broker.note("unpaused", self.name, "")

    def set_durability(self, durability: str) -> None:
        """Change what an OK promises from now on: memory, log or fsync. An ephemeral topic stays in memory."""
        self.durability = durability
        self._broker.note("durability_set", self.name, "")

    def empty(self) -> None:
        """Drop what waits on the topic; the channels keep theirs. A crash does not bring it back."""
        self._waiting.clear()
        self._waiting_count = 0
        self.deferrals.drop_waiting()
        if self.log is not None and not self.flowing:
            dropped_from = self._stop
            self._stop = (self.log.end, self.log.end_sequence)
            self.dropped.add(*dropped_from, *self._stop)
            for channel in self.channels.values():
                channel.skip_dropped(dropped_from[0])
        self._broker.checkpoint_now(self)

    def close(self) -> None:
        """Let go of everything, files too, and close the consumers of all channels; the topic is gone."""
        for name in list(self.channels):
            self.channels.pop(name).close()
            self._broker.note("channel_deleted", self.name, name)
        self.publishes.drop()
        self.deferrals.close()
        if self.log is not None:
            self.log.delete()
