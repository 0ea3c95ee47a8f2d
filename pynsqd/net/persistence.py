"""When the storage is written: checkpoints on a timer, fsyncs as they are asked for, probes of what has failed."""

import asyncio
from collections.abc import Callable
from time import thread_time
from typing import TYPE_CHECKING, Final, Protocol

import anyio
from anyio import to_thread

from pynsqd.core.broker import Broker
from pynsqd.core.group_commit import GroupCommit
from pynsqd.core.owed import Standing, describe, keep_in_memory_ones, move_stragglers
from pynsqd.core.topic import Topic
from pynsqd.net.fsyncs import Failed, Fsyncs
from pynsqd.storage.checkpoint import FILE_NAMES, Checkpoint
from pynsqd.wire.errors import Draining, StorageError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

# A checkpoint takes at most this share of the processor: a large one comes less often.
_CHECKPOINT_SHARE: Final = 0.1
_PROBE_S: Final = 1.0
# --sync-every makes for no more than so many fsyncs a second: at a million messages a second they would follow each
# other without a pause, and a message would cost 1.05 µs instead of 0.76.
_SYNC_GAP_S: Final = 0.02


class Metadata(Protocol):
    """Keeps the topics and channels."""

    def save(self) -> None:
        """Write all of them; a failure shows in the broker's ``metadata_error``."""
        ...

    def sync(self) -> None:
        """Make what was kept survive a loss of power; called in another thread. Raises StorageError."""
        ...


class Persistence:
    """Keeps the files of a node in step with its broker. ``after_turn`` is called before replies leave."""

    def __init__(
        self,
        broker: Broker,
        checkpoint: Checkpoint,
        log: "FilteringBoundLogger",
        wake: Callable[[], None],
        metadata: Metadata,
    ) -> None:
        """Take what to keep; ``wake`` has the turn end once more, for replies that were held back."""
        self._metadata = metadata
        self._broker = broker
        self._checkpoint = checkpoint
        self._log = log
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._interval_s = broker.options.checkpoint_interval_ns / 1e9
        self._fsyncs = Fsyncs(metadata.sync, self._synced)
        self._sync_alarm: asyncio.TimerHandle | None = None
        self._sync_timeout_s = broker.options.sync_timeout_ns / 1e9
        self._sync_wanted = False  # as soon as the one under way is done
        self._sync_began_s = 0.0  # the last one, by the loop's clock
        self._unsynced: dict[Topic, None] = {}  # topics with something to sync
        self._synced_at: dict[Topic, int] = {}  # their message_count at the last sync
        self._waiting: list[GroupCommit] = []  # the turns with replies that wait for the next sync
        self._in_sync: list[GroupCommit] = []  # ... and for the one under way
        self._reported: dict[Topic, str] = {}

    def after_turn(self) -> None:
        """Hold back the replies that need an fsync, and write the checkpoint that cannot wait."""
        broker = self._broker
        if broker.unsynced:
            self._count_unsynced()
        if broker.checkpoint_urgent:
            self.write_checkpoint()
        elif broker.changed and self._alarm is None:
            self._alarm = self._loop.call_later(self._interval_s, self._on_alarm)
        if broker.failing != self._reported:
            for topic, text in broker.failing.items() - self._reported.items():
                self._log.error("storage failed", topic=topic.name, error=text)
            for topic in self._reported.keys() - broker.failing.keys():
                if broker.topics.get(topic.name) is topic:
                    self._log.info("storage works again", topic=topic.name)
            self._reported = dict(broker.failing)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _on_alarm(self) -> None:
        self._alarm = None
        began = thread_time()  # not wall time: on a busy machine that would stretch the interval for nothing
        self.write_checkpoint()
        spent = thread_time() - began
        self._interval_s = max(self._broker.options.checkpoint_interval_ns / 1e9, spent / _CHECKPOINT_SHARE)

    def write_checkpoint(self, *, sync: bool = False) -> None:
        """Write down where every channel stands, then let go of the files that nobody needs."""
        broker = self._broker
        broker.checkpoint_urgent = False
        changed, broker.changed = broker.changed, {}
        topics = [topic for topic in changed if topic.log is not None and broker.topics.get(topic.name) is topic]
        standings = [(topic, self._describe(topic)) for topic in topics]
        self._checkpoint.keep_only(broker.topics.keys())
        try:
            self._checkpoint.write(sync=sync)
        except StorageError as error:
            broker.changed.update(changed)
            for topic in topics[:1]:
                broker.report_failure(topic, error)
            if self._alarm is None:  # what was deleted must not stand in the last one for good
                self._alarm = self._loop.call_later(_PROBE_S, self._on_alarm)
        # Also when it could not be written: what an older checkpoint owes of these files was finished since, and a
        # disk that is full of finished messages must not stay full.
        for topic, standing in standings:
            assert topic.log is not None  # noqa: S101 - filtered above
            topic.log.release(standing.needed_from)
            topic.deferrals.release(standing.buckets)

    def renew_checkpoints(self) -> None:
        """Sync both files of the checkpoint, so that a loss of power brings back none that is older than this start.

        It might know a topic that was deleted before, and be taken for one of that name that is made after.
        """
        for _ in FILE_NAMES:
            self.write_checkpoint(sync=True)

    def _describe(self, topic: Topic) -> Standing:
        assert topic.log is not None  # noqa: S101 - see write_checkpoint
        broker = self._broker
        below = topic.log.end - 2 * broker.options.max_bytes_per_file
        try:
            if topic.log.start < below:
                move_stragglers(topic, below, broker.options.max_bytes_per_file // 4)
        except StorageError as error:
            broker.report_failure(topic, error)
        log_ns, wall_ns = broker.log_ns(broker.now_ns), broker.wall_ns(broker.now_ns)
        standing = describe(topic, log_ns, wall_ns, broker.ids.until_ns, unsaved=bool(broker.metadata_error))
        self._checkpoint.put(topic.name, standing.state)
        return standing

    # -- fsync ---------------------------------------------------------------------------------------------------

    def _count_unsynced(self) -> None:
        """Sync what was appended: at once where an OK waits for it, else as --sync-every and --sync-timeout say."""
        broker = self._broker
        unsynced, broker.unsynced = broker.unsynced, {}
        self._unsynced |= unsynced
        if broker.awaiting_sync:
            awaiting, broker.awaiting_sync = broker.awaiting_sync, {}
            self._waiting.append(GroupCommit(awaiting))
            self._sync()
            return
        every = broker.options.sync_every
        synced_at = self._synced_at
        for topic in unsynced:
            if topic.message_count - synced_at.get(topic, 0) >= every:
                self._sync_within(self._sync_began_s + _SYNC_GAP_S - self._loop.time())
                return
        # An alarm that is set is early enough, unless it is for a gap longer than that. Nearly every turn ends here.
        if self._sync_alarm is None or self._sync_timeout_s < _SYNC_GAP_S:
            self._sync_within(self._sync_timeout_s)

    def _sync_within(self, seconds: float) -> None:
        if seconds <= 0:
            self._sync()
            return
        if self._sync_alarm is not None:
            if self._sync_alarm.when() <= self._loop.time() + seconds:
                return
            self._sync_alarm.cancel()
        self._sync_alarm = self._loop.call_later(seconds, self._sync)

    def _sync(self) -> None:
        if self._sync_alarm is not None:
            self._sync_alarm.cancel()
            self._sync_alarm = None
        self._sync_wanted = self._fsyncs.busy
        if self._sync_wanted:
            return
        self._sync_began_s = self._loop.time()
        unsynced, self._unsynced = self._unsynced, {}
        self._in_sync, self._waiting = self._waiting, []
        for topic in unsynced:
            self._synced_at[topic] = topic.message_count
        self._fsyncs.begin(list(unsynced))

    def _synced(self, failed: Failed) -> None:
        for topic, error in failed.items():
            self._broker.report_failure(topic, error)
        settled, self._in_sync = self._in_sync, []
        for group in settled:
            group.settle(failed)
        for topic in [topic for topic in self._synced_at if self._broker.topics.get(topic.name) is not topic]:
            del self._synced_at[topic]
        if settled or failed:
            self._wake()
        if self._sync_wanted:
            self._sync()

    # -- failures ------------------------------------------------------------------------------------------------

    async def probe_forever(self) -> None:
        """Try what has failed again and again, so that the node heals by itself."""
        while True:
            await anyio.sleep(_PROBE_S)
            for topic in list(self._broker.failing):
                if topic.log is None:
                    continue
                try:
                    await to_thread.run_sync(topic.log.probe)
                except StorageError as error:
                    self._broker.report_failure(topic, error)
                    continue
                self._broker.failing.pop(topic, None)
                self._broker.dirty.update(dict.fromkeys(topic.channels.values()))
                self._wake()
            if self._broker.metadata_error:
                self._metadata.save()

    # -- the end -------------------------------------------------------------------------------------------------

    async def settle(self, seconds: float) -> None:
        """Wait for the fsync that replies wait for; they leave with the next turn.

        Publishers whose fsync has not come within ``seconds`` get an error, and publish again.
        """
        with anyio.move_on_after(seconds):
            await self._fsyncs.idle()
        late, self._in_sync, self._waiting = self._in_sync + self._waiting, [], []
        for group in late:
            group.settle(dict.fromkeys(self._broker.topics.values(), Draining()))

    async def close(self) -> None:
        """Write the exact state, memory included, and close all files: nothing comes twice after this."""
        await self._fsyncs.idle()
        # From here on nothing is awaited, so that nobody asks for another sync.
        for alarm in (self._alarm, self._sync_alarm):
            if alarm is not None:
                alarm.cancel()
        self._fsyncs.close()
        for topic in self._broker.topics.values():
            if topic.log is None:
                continue
            try:
                keep_in_memory_ones(topic)
                topic.log.sync()
                topic.deferrals.sync()
            except StorageError as error:
                self._log.error("could not keep everything", topic=topic.name, error=str(error))
            self._broker.changed[topic] = None
        self.write_checkpoint(sync=True)
        if self._broker.failing:
            self._log.error("stopped with storage that fails", error=self._broker.health)
        for topic in self._broker.topics.values():
            topic.deferrals.close()
            if topic.log is not None:
                topic.log.close()
