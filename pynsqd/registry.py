"""The topics and channels of a node beyond its broker: what is kept of them, what lookupd is told and asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyio.abc import TaskGroup

from pynsqd.core.broker import Broker
from pynsqd.core.changes import Change
from pynsqd.core.log import LogEnd
from pynsqd.core.owed import end_of, restore
from pynsqd.core.topic import Topic
from pynsqd.lookup_peer import LookupPeers
from pynsqd.net.turn import Turn
from pynsqd.storage import metadata
from pynsqd.wire.errors import LimitReached, StartupError, StorageError
from pynsqd.wire.names import is_ephemeral

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_CREATED: Final = ("topic_created", "channel_created")
_APPENDED_BYTES: Final = 1 << 18  # with more the metadata are written anew, if that is not more itself
_place: Final = attrgetter("topic", "channel")


class Registry:
    """Keeps the metadata file, lookupd and new topics in step with the topics and channels of the broker."""

    def __init__(self, broker: Broker, folder: Path, log: FilteringBoundLogger) -> None:
        self._broker = broker
        self._folder = folder
        self._log = log
        self._peers: LookupPeers | None = None
        self._tasks: TaskGroup | None = None
        self._turn: Turn | None = None
        self._saved_bytes = 0  # of the metadata when they were written last, and of what was appended since
        self._appended_bytes = 0
        self._unsynced = False
        self._sync_error: StorageError | None = None

    def load(self, checkpoint: Mapping[str, Mapping[str, Any]] | None, on_disk: Iterable[str]) -> None:
        """Create the topics and channels that were there when the node stopped, and let them owe what they owed.

        A topic ``on_disk`` that the metadata does not name was made while they could not be saved; it is not lost. Nor
        is a channel that a checkpoint of such a time names. Raises StartupError.
        """
        states = checkpoint or {}
        if states:
            last = max(states.values(), key=itemgetter("released"))
            self._broker.resume(
                last["released"],
                max(state["wall"] for state in states.values()),
                max(state.get("ids", 0) for state in states.values()),
            )
            # Else the next life, if it comes soon, would begin with the ids that this one begins with.
            self._broker.checkpoint_urgent = True
        known = metadata.load(self._folder, self._log.warning, self._broker.options.durability)
        unknown = sorted(set(on_disk) - {kept.name for kept in known})
        for name in unknown:
            self._log.warning("topic has a log, but is not in the metadata", topic=name)
        for kept in known + [metadata.TopicMeta(name, False, self._broker.options.durability, ()) for name in unknown]:
            try:
                self._open(kept, states.get(kept.name))
            except StorageError as error:
                raise StartupError(f"failed to open topic {kept.name} - {error}") from None
        for name in states.keys() - self._broker.topics.keys():
            self._broker.ended = self._broker.ended.or_beyond(end_of(states[name]))
        self._broker.take_changes()
        self.save()
        self._tell()

    def _tell(self) -> None:
        """Log what there is: whoever starts a node that was killed wants to know."""
        topics = self._broker.topics.values()
        channels = [channel for topic in topics for channel in topic.channels.values()]
        if topics:
            waiting = sum(topic.depth for topic in topics) + sum(channel.depth for channel in channels)
            deferred = sum(len(one.deferred) for one in channels)
            self._log.info(
                "topics loaded", topics=len(topics), channels=len(channels), waiting=waiting, deferred=deferred
            )

    def _open(self, kept: metadata.TopicMeta, state: Mapping[str, Any] | None) -> None:
        topic = self._broker.open_topic(kept.name, kept.durability, end_of(state) if state else LogEnd())
        if kept.paused:
            topic.pause()
        for one in kept.channels:
            channel = topic.open_channel(one.name)
            if one.paused:
                channel.pause()
        if state and state.get("unsaved"):
            for name in state["channels"]:
                topic.open_channel(name)
        restore(topic, state)

    def save(self) -> None:
        """Write all there is now. A failure is logged and makes the node unhealthy; it is tried again on a timer."""
        topics = (_kept(topic, whole=True) for topic in self._broker.topics.values() if not topic.ephemeral)
        try:
            self._saved_bytes = metadata.save(self._folder, topics)
            self._appended_bytes = 0
            self._sync_error = None
            self._broker.metadata_error = ""
        except StorageError as error:
            if not self._broker.metadata_error:
                self._log.error("failed to persist metadata", error=str(error))
            self._broker.metadata_error = str(error)

    def _append(self, changes: list[Change]) -> bool:
        """Add what has changed to what was saved; tell whether that was worth it, and worked.

        What was created is synced when something that comes after it is: see ``sync``. The rest is an order, and leaves
        no other trace.
        """
        if self._broker.metadata_error or self._appended_bytes > max(_APPENDED_BYTES, self._saved_bytes):
            return False
        # An entry says how it is now, whatever became of it in between.
        now = [(topic, channel, self._state(topic, channel)) for topic, channel in dict.fromkeys(map(_place, changes))]
        created = all(change.kind in _CREATED for change in changes)
        try:
            self._appended_bytes += metadata.append(self._folder, now, sync_now=not created)
        except StorageError:
            return False
        if created:
            self._unsynced = True
            found = (self._broker.find_topic(change.topic) for change in changes)
            self._broker.unsynced.update((topic, None) for topic in found if topic is not None)
        return True

    def _state(self, topic: str, channel: str) -> metadata.TopicMeta | metadata.ChannelMeta | None:
        there = self._broker.find_topic(topic)
        if there is None:
            return None
        if not channel:
            return _kept(there, whole=False)
        if channel not in there.channels:
            return None
        return metadata.ChannelMeta(channel, there.channels[channel].paused)

    def sync(self) -> None:
        """Make what was appended survive a loss of power; runs in another thread.

        Raises StorageError, and then again until all was written anew: the system reports a failed sync only once.
        """
        if self._sync_error is not None:
            raise self._sync_error
        if not self._unsynced:
            return
        self._unsynced = False  # first: what is appended from here on is another sync's
        try:
            metadata.sync(self._folder)
        except StorageError as error:
            self._sync_error = error
            self._broker.metadata_error = str(error)
            raise

    def registrations(self) -> list[tuple[str, str]]:
        """Return (topic, channel) of all there is; (topic, "") for a topic without channels."""
        return [(topic.name, channel) for topic in self._broker.topics.values() for channel in (topic.channels or [""])]

    def announce(self, peers: LookupPeers, tasks: TaskGroup, turn: Turn) -> None:
        """From now on tell ``peers`` what changes, and ask them for the channels of new topics."""
        self._peers = peers
        self._tasks = tasks
        self._turn = turn
        self._broker.hold_new_topics = bool(self._broker.options.nsqlookupd_tcp_addresses)

    def on_changes(self, changes: list[Change]) -> None:
        """Save and announce what a turn has changed, before its replies leave."""
        lasting = [one for one in changes if not (is_ephemeral(one.topic) or is_ephemeral(one.channel))]
        if lasting and not self._append(lasting):
            self.save()
        if self._broker.metadata_error:
            self._keep_in_checkpoint(lasting)
        for change in changes:
            self._log.info(change.kind.replace("_", " "), topic=change.topic, channel=change.channel)
            if self._peers is None or self._tasks is None:
                continue
            self._peers.notify(change)
            if change.kind == "topic_created":
                topic = self._broker.find_topic(change.topic)
                if topic is not None and topic.held:
                    self._tasks.start_soon(self._find_channels, topic, self._peers)

    def _keep_in_checkpoint(self, changes: list[Change]) -> None:
        """Have new channels, whose names could not be saved, in a checkpoint before the replies of this turn leave."""
        for change in changes:
            topic = self._broker.find_topic(change.topic)
            if topic is not None and change.kind == "channel_created":
                self._broker.checkpoint_now(topic)

    async def _find_channels(self, topic: Topic, peers: LookupPeers) -> None:
        """Give a new topic the channels that lookupd knows, then let its messages flow (PROTOCOL 3.2)."""
        try:
            for name in await peers.channels(topic.name):
                if self._broker.find_topic(topic.name) is topic:
                    topic.channel(name)
        except LimitReached as error:
            self._log.warning("not all channels that lookupd knows", topic=topic.name, error=str(error))
        finally:
            topic.release()
            if self._turn is not None:
                self._turn.schedule()


def _kept(topic: Topic, *, whole: bool) -> metadata.TopicMeta:
    """Return what is kept of a topic, with its channels if ``whole``."""
    channels = topic.channels.values() if whole else ()
    lasting = (metadata.ChannelMeta(one.name, one.paused) for one in channels if not one.ephemeral)
    return metadata.TopicMeta(topic.name, topic.paused, topic.durability, tuple(lasting))
