"""The broker: topics, what happened in this turn, and the timers. Synchronous; time comes in as now_ns."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pynsqd.core.changes import Change, ChangeKind
from pynsqd.core.channel import Channel
from pynsqd.core.ids import IdGenerator
from pynsqd.core.log import LogEnd, LogStore
from pynsqd.core.peer import Peer
from pynsqd.core.publisher import Pending
from pynsqd.core.publishes import Publishes
from pynsqd.core.session import Session
from pynsqd.core.snapshot import snapshot, storage_snapshot
from pynsqd.core.stats import BrokerStats, StorageStats
from pynsqd.core.timers import Timers
from pynsqd.core.topic import Topic
from pynsqd.options import Options
from pynsqd.wire.errors import Draining, LimitReached, StartupError, StorageError
from pynsqd.wire.identify import Limits
from pynsqd.wire.names import is_ephemeral

if TYPE_CHECKING:
    from pynsqd.core.authority import Authority

# What an ephemeral topic or channel may hold when --mem-queue-size is 0: nsqd delivers only by luck then.
_LEAST_MEMORY = 100
_BEGIN = LogEnd()
# Ids may have been given for so long after the last checkpoint that a restart has found.
_ID_MARGIN_NS = 2_000_000_000


class Broker:
    """One node's topics and sessions.

    The edge feeds sessions with bytes, calls ``end_turn`` once everything that was ready has been read, and then
    writes what the sessions in ``output`` have to say. ``now_ns`` is a monotonic clock, ``wall_ns`` the time of day.
    """

    def __init__(
        self, options: Options, logs: LogStore, now_ns: int, wall_ns: int, authority: "Authority | None" = None
    ) -> None:
        """Begin without topics; ``authority`` says what clients may do, without one that is everything."""
        self.options = options
        self.limits = Limits(
            max_rdy_count=options.max_rdy_count,
            msg_timeout_ns=options.msg_timeout_ns,
            max_msg_timeout_ns=options.max_msg_timeout_ns,
            max_heartbeat_interval_ns=options.max_heartbeat_interval_ns,
            max_output_buffer_size=options.max_output_buffer_size,
            output_buffer_timeout_ns=options.output_buffer_timeout_ns,
            min_output_buffer_timeout_ns=options.min_output_buffer_timeout_ns,
            max_output_buffer_timeout_ns=options.max_output_buffer_timeout_ns,
            max_deflate_level=options.max_deflate_level,
            tls=bool(options.tls_cert or options.tls_key),
            deflate=options.deflate,
            snappy=options.snappy,
            auth_required=authority is not None,
        )
        self.topics: dict[str, Topic] = {}
        # Where the logs of new topics begin: behind those of all that were deleted. A checkpoint may still know one of
        # that name, if it could not be written since, and must not take the messages of the new one for those.
        self.ended = _BEGIN
        self.timers = Timers()
        self.ids = IdGenerator(options.id)
        self.memory_limit = options.mem_queue_size or _LEAST_MEMORY
        # New topics wait for ``Topic.release`` before they flow: somebody asks lookupd for their channels first.
        self.hold_new_topics = False
        self.now_ns = now_ns
        self._wall_offset_ns = wall_ns - now_ns
        self._log_offset_ns = self._wall_offset_ns
        # What this turn has touched.
        self.publishing: list[Publishes] = []
        self.unsynced: dict[Topic, None] = {}  # appended to
        self.awaiting_sync: dict[Topic, list[Pending]] = {}  # whose replies wait for an fsync of that
        self.dirty: dict[Channel, None] = {}
        self.output: dict[Session, None] = {}
        self.changes: list[Change] = []
        # What the next checkpoint has to describe anew, and whether the replies of this turn wait for it.
        self.changed: dict[Topic, None] = {}
        self.checkpoint_urgent = False
        self.failing: dict[Topic, str] = {}  # to what is wrong with its log
        self.metadata_error = ""  # what is wrong with the file of topics and channels
        self.buffered_bytes = 0  # frames in memory, counted once for every channel that waits with them
        self.memory_bytes = options.mem_queue_bytes
        self._new_session: Callable[[Broker, Peer, str, int], Session] = Session
        if authority is not None:
            from pynsqd.core.guarded import GuardedSession  # noqa: PLC0415  # not needed by most

            self._new_session = partial(GuardedSession, authority=authority)
        self._logs = logs
        self.sessions: dict[Session, None] = {}
        self.session_count = 0  # all there have been
        self.refused_count = 0  # publishes that got an error although there was nothing wrong with them
        self.draining = False  # takes no more messages and no new topics, see net.drain

    # -- topics --------------------------------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """Return the topic of that (valid) name, a new one if there is none. Raises StorageError, LimitReached."""
        topic = self.topics.get(name)
        if topic is None:
            if self.draining:
                raise Draining
            limit = self.options.max_topics
            if limit and len(self.topics) >= limit:
                raise LimitReached("TOO_MANY_TOPICS", f"topics exceed limit of {limit}")
            topic = self.open_topic(name, self.options.durability, self.ended)
            self.note("topic_created", name, "")
        return topic

    def open_topic(self, name: str, durability: str, known: LogEnd = _BEGIN) -> Topic:
        """Create a topic around its log, which goes on at ``known`` should less be there. Raises StorageError."""
        log = store = None
        if not is_ephemeral(name):
            log = self._logs.open(name, known.position, known.sequence)
            try:
                store = self._logs.open_deferred(name, known.serial)
            except (StartupError, StorageError):
                log.close()
                raise
        topic = self.topics[name] = Topic(name, self, log, store, durability, held=self.hold_new_topics)
        self.changed[topic] = None  # what the checkpoint says may be of one of that name that was deleted
        return topic

    def find_topic(self, name: str) -> Topic | None:
        """Return the topic of that name, None if there is none."""
        return self.topics.get(name)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its channels and messages, and close its consumers."""
        topic = self.topics.pop(name)
        if topic.log is not None:
            self.ended = self.ended.or_beyond(
                LogEnd(topic.log.end, topic.log.end_sequence, topic.deferrals.next_serial)
            )
        topic.close()
        for per_turn in (self.changed, self.unsynced, self.awaiting_sync, self.failing):
            per_turn.pop(topic, None)
        self.checkpoint_urgent = True
        self.note("topic_deleted", name, "")

    # -- sessions ------------------------------------------------------------------------------------------------

    def session(self, peer: Peer, remote_address: str, now_ns: int) -> Session:
        """Start a V2 session for a new connection from ``remote_address`` (host:port)."""
        session = self._new_session(self, peer, remote_address, now_ns)
        self.sessions[session] = None
        self.session_count += 1
        return session

    def forget(self, session: Session) -> None:
        """The connection of ``session`` is gone."""
        self.sessions.pop(session, None)
        self.output.pop(session, None)

    def close_sessions(self) -> None:
        """End every connection, without a frame, as nsqd does on shutdown."""
        for session in self.sessions:
            session.close()

    # -- turns ---------------------------------------------------------------------------------------------------

    def wall_ns(self, now_ns: int) -> int:
        """Return the time of day at ``now_ns``, in ns since the epoch."""
        return now_ns + self._wall_offset_ns

    def log_ns(self, now_ns: int) -> int:
        """Return ``now_ns`` in the time that due times are kept in: wall time that never steps, nor goes back."""
        return now_ns + self._log_offset_ns

    def from_log_ns(self, log_ns: int) -> int:
        """Return what ``log_ns`` is on the monotonic clock."""
        return log_ns - self._log_offset_ns

    def resume(self, log_ns: int, wall_ns: int, ids_ns: int) -> None:
        """Go on where the last checkpoint before a restart was: log time, time of day, that of the last ids, all in ns.

        Log time has gone on by what the clock says has passed, and not back if it was set back. Ids go on, too.
        """
        self._log_offset_ns = log_ns + max(0, self.wall_ns(self.now_ns) - wall_ns) - self.now_ns
        self.ids.resume(max(wall_ns, ids_ns) + _ID_MARGIN_NS)

    def checkpoint_now(self, topic: Topic) -> None:
        """What was dropped from ``topic`` must not come back, so the replies of this turn wait for a checkpoint."""
        self.changed[topic] = None
        self.checkpoint_urgent = True

    def report_failure(self, topic: Topic, error: StorageError) -> None:
        """The log of ``topic`` could not be written or read. Of a deleted one nobody needs to know."""
        if self.topics.get(topic.name) is topic:
            self.failing[topic] = str(error)

    @property
    def health(self) -> str:
        """``OK``, or ``NOK - `` and what is wrong with the storage."""
        wrong = next(iter(self.failing.values()), self.metadata_error)
        return f"NOK - {wrong}" if wrong else "OK"

    def note(self, kind: ChangeKind, topic: str, channel: str) -> None:
        """Remember a change of topics or channels for those who save or announce it."""
        self.changes.append(Change(kind, topic, channel))

    def end_turn(self, now_ns: int, wall_ns: int) -> None:
        """Append what was published, do what is due, deliver. Replies may be sent once this has returned."""
        self.now_ns = now_ns
        self._wall_offset_ns = wall_ns - now_ns
        if self.publishing:
            publishing, self.publishing = self.publishing, []
            for publishes in publishing:
                publishes.commit(now_ns, wall_ns)
        if self.timers.earliest_ns <= now_ns:
            self.timers.run(now_ns)
        if self.dirty:
            dirty, self.dirty = self.dirty, {}
            for channel in dirty:
                channel.deliver(now_ns)
                self.changed[channel.topic] = None

    def take_output(self) -> list[Session]:
        """Return the sessions that have something to write, or are to be closed, and forget them."""
        output, self.output = self.output, {}
        return list(output)

    def take_changes(self) -> list[Change]:
        """Return what was created, deleted or paused since the last call."""
        changes, self.changes = self.changes, []
        return changes

    @property
    def next_due_ns(self) -> int:
        """When the next turn is wanted although nobody sends anything, in ns; 0 if never."""
        return self.timers.next_due_ns

    # -- reading -------------------------------------------------------------------------------------------------

    def stats(self, topic: str = "", channel: str = "", include_clients: bool = True) -> BrokerStats:
        """Return a snapshot of everything, of one topic, or of the channels of one name."""
        producers = [session for session in self.sessions if session.published]
        return snapshot(self, producers, topic, channel, include_clients)

    def storage_stats(self, topic: str = "") -> list[StorageStats]:
        """Return what the topics, or just ``topic``, have on disk."""
        return storage_snapshot(self, topic)
