"""A node without sockets: a broker on a clock that the test moves, and clients that are a session each.

``Node.turn`` does what the end of a loop turn does, ``Node.advance`` what its one timer does, so a test is: bytes in,
turn, frames out.
"""

import json
import struct
from typing import Any
from weakref import WeakSet

import msgpack

from pynsqd.core.authority import Authority
from pynsqd.core.broker import Broker
from pynsqd.core.changes import Change
from pynsqd.core.channel import Channel
from pynsqd.core.group_commit import GroupCommit
from pynsqd.core.log import LogEnd, LogStore
from pynsqd.core.owed import describe, end_of, keep_in_memory_ones, restore
from pynsqd.core.topic import Topic
from pynsqd.options import Options
from pynsqd.wire.errors import StorageError
from tests.support.clock import FakeClock
from tests.support.memory_logs import MemoryLog, MemoryLogs
from tests.support.wire import ERROR, MESSAGE, RESPONSE, Frame, Message, command, mpub, sized

__all__ = ["CLOSE_WAIT", "HEARTBEAT", "MS", "OK", "Client", "Node", "S", "command", "error", "mpub", "sized"]

MS = 1_000_000
S = 1_000_000_000
OK = Frame(RESPONSE, b"OK")
HEARTBEAT = Frame(RESPONSE, b"_heartbeat_")
CLOSE_WAIT = Frame(RESPONSE, b"CLOSE_WAIT")
_HEARTBEAT_BYTES = b"\0\0\0\x0f\0\0\0\0_heartbeat_"


def error(text: str | bytes) -> Frame:
    """Return the error frame with that text."""
    return Frame(ERROR, text.encode() if isinstance(text, str) else text)


class Node:
    """A broker with its clock. The monotonic clock and the time of day are far apart, so none passes as the other."""

    def __init__(self, logs: LogStore | None = None, authority: Authority | None = None, **options: Any) -> None:
        self.clock = FakeClock(5 * S)
        self.wall_offset_ns = 1_700_000_000 * S
        self._options = Options(**{"id": 1} | options)
        self._logs = logs or MemoryLogs()
        self._authority = authority
        self.broker = Broker(self._options, self._logs, self.now_ns, self.wall_ns, self._authority)
        self.states: dict[str, Any] = {}  # the last checkpoint
        self.checkpoints = 0
        self.checkpoints_fail = False  # the last one that could be written counts
        self.changes: list[Change] = []
        self.turns = 0
        self.unsynced: list[tuple[GroupCommit, list[Topic]]] = []  # the turns that wait for ``fsync``
        self._touched: dict[Client, None] = {}
        self._clients: WeakSet[Client] = WeakSet()
        self._ports = 40000

    @property
    def now_ns(self) -> int:
        return self.clock.now_ns()

    @property
    def wall_ns(self) -> int:
        return self.now_ns + self.wall_offset_ns

    def client(self, magic: bytes = b"  V2", host: str = "10.0.0.1") -> "Client":
        """Connect a client and let it say ``magic``."""
        self._ports += 1
        client = Client(self, f"{host}:{self._ports}")
        self._clients.add(client)
        if magic:
            client.send(magic)
        return client

    def consumer(self, rdy: int, topic: bytes = b"t", channel: bytes = b"c", **identify: Any) -> "Client":
        """Connect a client that has subscribed with that RDY; messages that wait are in its inbox."""
        client = self.client()
        if identify:
            assert client.ask(identify_command(**identify)) == [OK]
        assert client.ask(b"SUB " + topic + b" " + channel + b"\n") == [OK]
        client.send(b"RDY %d\n" % rdy)
        self.turn()
        return client

    def publish(self, *bodies: bytes, topic: bytes = b"t") -> None:
        """Publish in one batch and in a turn of its own."""
        client = self.client()
        assert client.ask(mpub(topic, list(bodies))) == [OK]
        client.drop()
        self.turn()

    def topic(self, name: str = "t") -> Topic:
        """Return a topic that exists."""
        return self.broker.topics[name]

    def channel(self, name: str = "c", topic: str = "t") -> Channel:
        """Return a channel that exists."""
        return self.broker.topics[topic].channels[name]

    def touch(self, client: "Client") -> None:
        """Flush ``client`` at the end of the turn."""
        self._touched[client] = None

    def turn(self) -> None:
        """End the turn, and those that follow from it."""
        for _ in range(10_000):
            self.turns += 1
            self.broker.end_turn(self.now_ns, self.wall_ns)
            self.changes += self.broker.take_changes()
            self._hold_for_fsync()
            if self.broker.checkpoint_urgent:
                self.checkpoint()
            touched, self._touched = self._touched, {}
            for session in self.broker.take_output():
                session.flush()
            for client in touched:
                client.flush()
            if not (self.broker.dirty or self.broker.publishing):
                return
        raise AssertionError("the turns do not come to an end")

    def _hold_for_fsync(self) -> None:
        awaiting, self.broker.awaiting_sync = self.broker.awaiting_sync, {}
        if awaiting:
            self.unsynced.append((GroupCommit(awaiting), list(awaiting)))

    def fsync(self, error: str = "") -> None:
        """What was appended has reached the disk, or could not; with ``durability="fsync"`` replies wait for this."""
        unsynced, self.unsynced = self.unsynced, []
        for group, topics in unsynced:
            group.settle(dict.fromkeys(topics, StorageError(error)) if error else {})
        self.turn()

    def checkpoint(self) -> None:
        """Write down what is owed, and let go of what nobody needs."""
        self.checkpoints += 1
        self.broker.checkpoint_urgent = False
        self.broker.changed.clear()
        topics = [topic for topic in self.broker.topics.values() if topic.log is not None]
        log_ns, ids_ns = self.broker.log_ns(self.broker.now_ns), self.broker.ids.until_ns
        described = [(topic, describe(topic, log_ns, self.wall_ns, ids_ns)) for topic in topics]
        if not self.checkpoints_fail:
            self.states = {topic.name: msgpack.unpackb(msgpack.packb(standing.state)) for topic, standing in described}
        for topic, standing in described:
            assert topic.log is not None
            topic.log.release(standing.needed_from)
            topic.deferrals.release(standing.buckets)

    def stop(self) -> None:
        """Start a new broker on the same logs after an orderly end: all connections are closed first."""
        for client in list(self._clients):
            client.drop()
        self.turn()
        for topic in self.broker.topics.values():
            if topic.log is not None:
                keep_in_memory_ones(topic)
        self.checkpoint()
        self.kill()

    def kill(self) -> None:
        """Start a new broker on the same logs, with what the last checkpoint and the list of channels say."""
        self.clock.advance(ms=2)  # as long as a start takes at least
        kept = [topic for topic in self.broker.topics.values() if not topic.ephemeral]
        for client in self._clients:
            client.closed = True
        self._touched.clear()
        self.unsynced.clear()
        self.broker = Broker(self._options, self._logs, self.now_ns, self.wall_ns, self._authority)
        if self.states:
            last = max(self.states.values(), key=lambda state: state["released"])
            self.broker.resume(last["released"], last["wall"], last["ids"])
        for old in kept:
            state = self.states.get(old.name)
            topic = self.broker.open_topic(old.name, old.durability, end_of(state) if state else LogEnd())
            if old.paused:
                topic.pause()
            for channel in old.channels.values():
                if not channel.ephemeral:
                    again = topic.channel(channel.name)
                    if channel.paused:
                        again.pause()
            restore(topic, state)
        for name in self.states.keys() - self.broker.topics.keys():
            self.broker.ended = self.broker.ended.or_beyond(end_of(self.states[name]))
        self.turn()

    def advance(self, *, ns: int = 0, ms: float = 0, s: float = 0) -> None:
        """Let time pass: a turn at each due time of the broker, and one at the end."""
        until_ns = self.now_ns + ns + round(ms * MS) + round(s * S)
        for _ in range(10_000):
            due_ns = self.broker.next_due_ns
            if not 0 < due_ns <= until_ns:
                break
            self.clock.advance(ns=max(0, due_ns - self.now_ns))
            self.turn()
        else:
            raise AssertionError("the timer is due all the time")
        self.clock.advance(ns=until_ns - self.now_ns)
        self.turn()


class Client:
    """The peer of one session: what it sends, what was written to it, whether it was closed."""

    def __init__(self, node: Node, address: str) -> None:
        self.node = node
        self.session = node.broker.session(self, address, node.now_ns)
        self.closed = False
        self.paused = False
        self.answers = False  # heartbeats are answered, and not shown to the test
        self.pipelined: bytes | None = None  # what came behind an IDENTIFY, once its upgrade was due
        self.writes = 0
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Let the session read ``data``; the turn goes on."""
        self.session.receive(data, self.node.now_ns)
        self.node.touch(self)

    def ask(self, data: bytes) -> list[Frame]:
        """Send ``data``, end the turn, return the frames that came."""
        self.send(data)
        self.node.turn()
        return self.take()

    def eof(self) -> list[Frame]:
        """Shut down the sending side, end the turn, return the frames that came."""
        self.session.eof()
        self.node.touch(self)
        self.node.turn()
        return self.take()

    def drop(self) -> None:
        """The connection is lost, from either side."""
        if not self.closed:
            self.closed = True
            self.session.closed()

    def flush(self) -> None:
        """Write what the session has to say, as a connection does; nothing is written to a lost one."""
        output = self.session.take_output()
        if self.closed:
            return
        if output:
            self.writes += 1
            self._buffer += b"".join(output)
        if self.answers and _HEARTBEAT_BYTES in output:
            self._buffer = self._buffer.replace(_HEARTBEAT_BYTES, b"")
            self.send(b"NOP\n")
        if self.session.finished:
            self.pipelined = self.session.take_upgrade()
            if self.pipelined is None:
                self.drop()

    def pause_reading(self) -> None:
        """The session wants no more for now; the test may send in spite of it, as what was read already does."""
        self.paused = True

    def resume_reading(self) -> None:
        """The session wants more, and has something to say."""
        self.paused = False
        self.node.touch(self)

    def take(self) -> list[Frame]:
        """Return the frames written since the last call."""
        frames = []
        while self._buffer:
            (size,) = struct.unpack_from(">i", self._buffer)
            assert 4 <= size <= len(self._buffer) - 4, self._buffer
            frames.append(Frame(int.from_bytes(self._buffer[4:8], "big"), self._buffer[8 : size + 4]))
            self._buffer = self._buffer[size + 4 :]
        return frames

    def messages(self) -> list[Message]:
        """Return the messages written since the last call; anything else is a failure."""
        frames = self.take()
        assert all(frame.type == MESSAGE for frame in frames), frames
        return [Message.parse(frame.payload) for frame in frames]

    def bodies(self) -> list[bytes]:
        """Return the bodies of the messages written since the last call."""
        return [message.body for message in self.messages()]


def identify_command(**keys: Any) -> bytes:
    """Return an IDENTIFY command with these keys."""
    return command(b"IDENTIFY", json.dumps(keys).encode())


class FailingLogs(MemoryLogs):
    """Logs of which some refuse: to be opened, or to be appended to, by topic."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse_open: dict[str, str] = {}

    def open(self, topic: str, known_end: int = -1, known_sequence: int = 0) -> MemoryLog:
        if topic in self.refuse_open:
            raise StorageError(self.refuse_open[topic])
        return super().open(topic, known_end, known_sequence)

    def refuse_append(self, topic: str, cause: str) -> None:
        """Refuse what is published to ``topic`` from now on, plain or deferred; not any more if ``cause`` is empty."""
        self.open(topic).failing = self.open_deferred(topic).failing = cause

    def appended(self) -> dict[str, list[int]]:
        """Return by topic how many messages each append for all channels had."""
        return {
            name: [len(batch) for _, channel, batch, _ in log.records if not channel] for name, log in self.logs.items()
        }
