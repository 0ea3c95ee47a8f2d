"""The broker: topics, what happened in this turn, and the timers. Synchronous; time comes in as now_ns."""

from pynsqd.core.changes import Change, ChangeKind
from pynsqd.core.channel import Channel
from pynsqd.core.ids import IdGenerator
from pynsqd.core.log import LogStore
from pynsqd.core.session import Peer, Session
from pynsqd.core.snapshot import snapshot
from pynsqd.core.stats import BrokerStats
from pynsqd.core.timers import Timers
from pynsqd.core.topic import Topic
from pynsqd.options import Options
from pynsqd.wire.identify import Limits

# What an ephemeral topic or channel may hold when --mem-queue-size is 0: nsqd delivers only by luck then.
_LEAST_MEMORY = 100


class Broker:
    """One node's topics and sessions.

    The edge feeds sessions with bytes, calls ``end_turn`` once everything that was ready has been read, and then
    writes what the sessions in ``output`` have to say. ``now_ns`` is a monotonic clock, ``wall_ns`` the time of day.
    """

    def __init__(self, options: Options, logs: LogStore, now_ns: int, wall_ns: int) -> None:
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
            tls=False,
            deflate=False,
            snappy=False,
            auth_required=False,
        )
        self.topics: dict[str, Topic] = {}
        self.timers = Timers()
        self.ids = IdGenerator(options.id)
        self.memory_limit = options.mem_queue_size or _LEAST_MEMORY
        self.health = "OK"
        # New topics wait for ``Topic.release`` before they flow: somebody asks lookupd for their channels first.
        self.hold_new_topics = False
        self.now_ns = now_ns
        self._wall_offset_ns = wall_ns - now_ns
        # What this turn has touched.
        self.publishing: list[Topic] = []
        self.dirty: dict[Channel, None] = {}
        self.output: dict[Session, None] = {}
        self._changes: list[Change] = []
        self._logs = logs
        self.sessions: dict[Session, None] = {}

    # -- topics --------------------------------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """Return the topic of that (valid) name, a new one if there is none. Raises StorageError."""
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name, self, self._logs.open(name), held=self.hold_new_topics)
            self.note("topic_created", name, "")
        return topic

    def find_topic(self, name: str) -> Topic | None:
        """Return the topic of that name, None if there is none."""
        return self.topics.get(name)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its channels and messages, and close its consumers."""
        self.topics.pop(name).close()
        self.note("topic_deleted", name, "")

    # -- sessions ------------------------------------------------------------------------------------------------

    def session(self, peer: Peer, remote_address: str, now_ns: int) -> Session:
        """Start a V2 session for a new connection from ``remote_address`` (host:port)."""
        session = Session(self, peer, remote_address, now_ns)
        self.sessions[session] = None
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

    def note(self, kind: ChangeKind, topic: str, channel: str) -> None:
        """Remember a change of topics or channels for those who save or announce it."""
        self._changes.append(Change(kind, topic, channel))

    def end_turn(self, now_ns: int, wall_ns: int) -> None:
        """Append what was published, do what is due, deliver. Replies may be sent once this has returned."""
        self.now_ns = now_ns
        self._wall_offset_ns = wall_ns - now_ns
        if self.publishing:
            publishing, self.publishing = self.publishing, []
            for topic in publishing:
                topic.commit(now_ns, wall_ns)
        self.timers.run(now_ns)
        if self.dirty:
            dirty, self.dirty = self.dirty, {}
            for channel in dirty:
                channel.deliver(now_ns)

    def take_output(self) -> list[Session]:
        """Return the sessions that have something to write, or are to be closed, and forget them."""
        output, self.output = self.output, {}
        return list(output)

    def take_changes(self) -> list[Change]:
        """Return what was created, deleted or paused since the last call."""
        changes, self._changes = self._changes, []
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
