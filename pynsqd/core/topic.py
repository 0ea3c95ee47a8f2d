"""A topic: what was published in this turn becomes one batch, goes to the log once, then to every channel. Hot."""

from collections import deque
from typing import TYPE_CHECKING

from pynsqd.core.batch import Batch
from pynsqd.core.channel import Channel
from pynsqd.core.log import TopicLog
from pynsqd.core.publisher import Publisher
from pynsqd.wire.encoder import message_frames
from pynsqd.wire.errors import StorageError
from pynsqd.wire.names import is_ephemeral

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker


class Topic:
    """Takes messages and hands each to all of its channels.

    While there is no channel, while it is paused, or held until lookupd has been asked for its channels, messages
    wait on the topic; the channels that exist when that ends get them.
    """

    __slots__ = (
        "_bodies",
        "_broker",
        "_deferred",
        "_log",
        "_publishers",
        "_waiting",
        "_waiting_deferred",
        "channels",
        "depth",
        "ephemeral",
        "held",
        "message_bytes",
        "message_count",
        "name",
        "paused",
    )

    def __init__(self, name: str, broker: "Broker", log: TopicLog, *, held: bool) -> None:
        self._broker = broker
        self._log = log
        # What this turn has brought: bodies, and who waits for a reply (with its index and the verb).
        self._bodies: list[bytes] = []
        self._publishers: list[tuple[Publisher, int, str]] = []
        self._deferred: list[tuple[bytes, int, Publisher, int, str]] = []
        self._waiting: deque[Batch] = deque()
        self._waiting_deferred: list[tuple[int, bytes]] = []
        self.channels: dict[str, Channel] = {}
        self.depth = 0  # messages in _waiting and _waiting_deferred
        self.ephemeral = is_ephemeral(name)
        self.held = held
        self.message_bytes = 0
        self.message_count = 0
        self.name = name
        self.paused = False

    # -- publishing ----------------------------------------------------------------------------------------------

    def publish(self, bodies: list[bytes], publisher: Publisher, verb: str) -> None:
        """Publish ``bodies`` at the end of the turn; the last reply of ``publisher`` is the OK for it."""
        if not self._publishers:
            self._broker.publishing.append(self)
        self._bodies += bodies
        self._publishers.append((publisher, len(publisher.replies) - 1, verb))

    def publish_deferred(self, body: bytes, delay_ns: int, publisher: Publisher, verb: str) -> None:
        """Publish ``body`` at the end of the turn, to be delivered ``delay_ns`` later and not before."""
        self._deferred.append((body, delay_ns, publisher, len(publisher.replies) - 1, verb))
        self._broker.publishing.append(self)

    def commit(self, now_ns: int, wall_ns: int) -> None:
        """Append what the turn has brought to the log and pass it on; publishers hear of a failure."""
        if self._publishers:
            bodies, publishers = self._bodies, self._publishers
            self._bodies, self._publishers = [], []
            self._commit_batch(bodies, publishers, wall_ns)
        if self._deferred:
            deferred, self._deferred = self._deferred, []
            for body, delay_ns, publisher, reply, verb in deferred:
                self._commit_deferred(body, now_ns + delay_ns, (publisher, reply, verb), wall_ns)

    def _commit_batch(self, bodies: list[bytes], publishers: list[tuple[Publisher, int, str]], wall_ns: int) -> None:
        if not bodies:
            return
        ids = self._broker.ids.take(len(bodies), wall_ns)
        batch = Batch(ids, message_frames(ids, bodies, wall_ns))
        if self._append(batch, publishers):
            self.message_count += len(bodies)
            self.message_bytes += sum(map(len, bodies))
            self._pass_on(batch)

    def _commit_deferred(self, body: bytes, due_ns: int, publisher: tuple[Publisher, int, str], wall_ns: int) -> None:
        ids = self._broker.ids.take(1, wall_ns)
        batch = Batch(ids, message_frames(ids, [body], wall_ns))
        if not self._append(batch, [publisher]):
            return
        self.message_count += 1
        self.message_bytes += len(body)
        if self.flowing:
            for channel in self.channels.values():
                channel.put_deferred(due_ns, batch.frames)
        elif self._room():
            self._waiting_deferred.append((due_ns, batch.frames))
            self.depth += 1

    def _append(self, batch: Batch, publishers: list[tuple[Publisher, int, str]]) -> bool:
        try:
            self._log.append(batch)
        except StorageError as error:
            for publisher, reply, verb in publishers:
                publisher.publish_failed(reply, verb, error)
            return False
        return True

    # -- towards the channels ------------------------------------------------------------------------------------

    @property
    def flowing(self) -> bool:
        """Whether messages go on to the channels at once."""
        return bool(self.channels) and not self.paused and not self.held

    def _pass_on(self, batch: Batch) -> None:
        if self.flowing:
            for channel in self.channels.values():
                channel.put(batch)
            return
        room = self._room()
        if room < len(batch):
            batch = batch.first(room)
        if batch.ids:
            self._waiting.append(batch)
            self.depth += len(batch)

    def _room(self) -> int:
        """How many more messages may wait here; only an ephemeral topic has a limit (PROTOCOL 1.16)."""
        return max(0, self._broker.memory_limit - self.depth) if self.ephemeral else 1 << 62

    def _flow(self) -> None:
        """Hand what waits to the channels, if it may go."""
        if not self.flowing:
            return
        for batch in self._waiting:
            for channel in self.channels.values():
                channel.put(batch)
        for due_ns, frame in self._waiting_deferred:
            for channel in self.channels.values():
                channel.put_deferred(due_ns, frame)
        self.empty()

    # -- channels ------------------------------------------------------------------------------------------------

    def channel(self, name: str) -> Channel:
        """Return the channel of that name, a new one if there is none."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(self, name, self._broker, self._broker.now_ns)
            self._broker.note("channel_created", self.name, name)
            self._flow()
        return channel

    def delete_channel(self, name: str) -> None:
        """Delete a channel with its messages and close its consumers. An ephemeral topic goes with its last channel."""
        channel = self.channels.pop(name)
        channel.close()
        self._broker.note("channel_deleted", self.name, name)
        if self.ephemeral and not self.channels:
            self._broker.delete_topic(self.name)

    # -- administration ------------------------------------------------------------------------------------------

    def release(self) -> None:
        """End the hold of a new topic: its channels are known."""
        self.held = False
        self._flow()

    def pause(self) -> None:
        """Keep messages on the topic; the channels go on with what they have."""
        self.paused = True
        self._broker.note("paused", self.name, "")

    def unpause(self) -> None:
        """Let messages flow again."""
        self.paused = False
        self._broker.note("paused", self.name, "")
        self._flow()

    def empty(self) -> None:
        """Drop what waits on the topic; the channels keep theirs."""
        self._waiting.clear()
        self._waiting_deferred.clear()
        self.depth = 0

    def close(self) -> None:
        """Let go of everything and close the consumers of all channels; the topic is gone."""
        for name in list(self.channels):
            self.channels.pop(name).close()
            self._broker.note("channel_deleted", self.name, name)
        self.empty()
