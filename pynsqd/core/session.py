"""One V2 client, sans-I/O: bytes in, replies and message frames out (PROTOCOL 1). Hot.

What the commands do is in ``commands`` and the files it names; they take the session.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Protocol

from pynsqd.core.bodies import BodyRule, TakeBody
from pynsqd.core.commands import COMMANDS
from pynsqd.core.consumer import Consumer
from pynsqd.core.consuming import finish
from pynsqd.core.group_commit import HeldReplies
from pynsqd.core.publisher import Failure
from pynsqd.core.publishing import pub_again, read_batch
from pynsqd.core.security import Security
from pynsqd.core.timers import Timer
from pynsqd.core.transitions import INIT, LEGAL, UNSECURED, illegal
from pynsqd.wire import encoder
from pynsqd.wire.constants import MAGIC_V2
from pynsqd.wire.decoder import Decoder, LineTooLong
from pynsqd.wire.errors import (
    E_AUTH_DISABLED,
    E_BAD_PROTOCOL,
    ClientError,
    FatalClientError,
    LimitReached,
    StorageError,
    failed,
)
from pynsqd.wire.identify import unidentified

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.incoming_batch import IncomingBatch
    from pynsqd.core.topic import Topic
    from pynsqd.wire.authorization import Grant

# How long half a command, or output that is not read, may stand where there are no heartbeats to say so.
_PATIENCE_NS: Final = 60_000_000_000


class Peer(Protocol):
    """The connection of a session, as the session sees it."""

    def flush(self) -> None:
        """Write what ``take_output`` gives and close if the session is closing. Called at the end of a turn."""
        ...

    def pause_reading(self) -> None:
        """Call ``receive`` no more, as far as that is possible."""
        ...

    def resume_reading(self) -> None:
        """Read again, and flush at the end of this turn."""
        ...


class Session:
    """The protocol state of one connection.

    ``receive`` and ``eof`` take what the peer sent. What is to be sent back gathers in ``replies`` (in the order of
    the commands) and ``frames`` (messages) until ``take_output``, which is only called once the turn is committed.
    """

    __slots__ = (
        "_heartbeat_due_ns",
        "_held",
        "_magic",
        "_peer",
        "_read_due_ns",
        "_take_body",
        "_timer",
        "_unread_since_ns",
        "_upgrade",
        "_upgrading",
        "batch",
        "body_delay_ns",
        "body_of",
        "body_size",
        "body_topic",
        "broker",
        "closing",
        "connect_wall_ns",
        "consumer",
        "decoder",
        "frames",
        "grant",
        "identity",
        "pub_line",
        "pub_topic",
        "published",
        "remote_address",
        "replies",
        "security",
        "state",
        "topics",
    )

    def __init__(self, broker: "Broker", peer: Peer, remote_address: str, now_ns: int) -> None:
        self.broker = broker
        self._peer: Peer | None = peer
        self.decoder = Decoder()
        self._magic = False
        self.body_of: BodyRule | None = None  # the command whose body is awaited
        self.body_size = -1  # as declared, -1 until it has come
        self.body_topic = ""
        self.body_delay_ns = 0
        self._take_body: TakeBody | None = None
        self.batch: IncomingBatch | None = None  # the messages of an MPUB so far
        self.closing = False
        self.connect_wall_ns = broker.wall_ns(now_ns)
        self.consumer: Consumer | None = None
        self.frames: list[bytes] = []
        self._held: HeldReplies | None = None  # while replies wait for an fsync, or a heartbeat is to leave
        self.grant: Grant | None = None  # what an auth server said
        self.identity = unidentified(remote_address, broker.limits)
        self.pub_line = b""  # the line of the last PUB, see Decoder.same_again, and its topic
        self.pub_topic = ""
        self.published: dict[str, int] = {}  # topic to messages, for /stats
        self.remote_address = remote_address
        self.replies: list[bytes] = []
        self.security: Security | None = None  # what TLS has shown
        self.state = UNSECURED if broker.options.tls_required else INIT
        self.topics = broker.topics  # those that need no ``topic`` to publish to
        self._unread_since_ns = 0
        self._upgrade: bytes | None = None  # what came after an IDENTIFY whose upgrade is due
        self._upgrading = False
        self._timer = Timer(self._on_timer)
        self._heartbeat_due_ns = 0
        self._read_due_ns = 0
        self.restart_clock(now_ns)

    # -- input ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take bytes from the peer and carry out every command that is complete."""
        if self.closing:
            return
        decoder = self.decoder
        decoder.feed(data)
        try:
            if not self._magic and not self._read_magic(now_ns):
                return
            done = self._run(decoder, now_ns)
        except LineTooLong:
            self.close()
            return
        except FatalClientError as error:
            self.fail(error)
            return
        interval_ns = self.identity.heartbeat_interval_ns
        if not interval_ns:
            self._limit_half_a_command(done, now_ns)
        elif done:
            # nsqd sets its deadline before each line, so only a whole command moves it.
            self._read_due_ns = now_ns + 2 * interval_ns

    def eof(self) -> None:
        """The peer will send no more: a body that is cut short is answered, then the connection ends."""
        if not self.closing:
            self._cut_short()

    def _run(self, decoder: Decoder, now_ns: int) -> bool:
        """Carry out what has come; tell whether that was at least one command."""
        done = False
        while not self.closing:
            if self.body_of is not None:
                if not self._read_body(self.body_of, now_ns):
                    break
                done = True
                continue
            if self.pub_line:
                body = decoder.same_again(self.pub_line, self.broker.options.max_msg_size)
                if body is not None:
                    pub_again(self, body)
                    done = True
                    if decoder:
                        continue
                    break
            ids = decoder.fin_run()
            if ids:
                finish(self, ids, now_ns)
                done = True
                continue
            line = decoder.line()
            if line is None:
                break
            self._command(line, now_ns)
            if self.body_of is None:
                done = True
        return done

    def _read_magic(self, now_ns: int) -> bool:
        magic = self.decoder.take(len(MAGIC_V2))
        if magic is None:
            return False
        if magic != MAGIC_V2:
            raise FatalClientError(E_BAD_PROTOCOL)
        self._magic = True
        self.restart_clock(now_ns)
        return True

    def _command(self, line: bytes, now_ns: int) -> None:
        params = line.split(b" ")
        name = params[0]
        legal = LEGAL.get(name)
        if legal is None or self.state not in legal:
            raise illegal(self.state, name)
        try:
            COMMANDS[name](self, params, now_ns)
        except FatalClientError:
            raise
        except ClientError as error:
            self.replies.append(encoder.error(error.payload))

    def expect_body(self, rule: BodyRule, take: TakeBody | None, topic: str = "", delay_ns: int = 0) -> None:
        """Read a body next, and give it to ``take``; without that it is the batch of an MPUB."""
        self.body_of = rule
        self.body_size = -1
        self.body_topic = topic
        self.body_delay_ns = delay_ns
        self._take_body = take

    def _read_body(self, rule: BodyRule, now_ns: int) -> bool:
        """Go on with the body that is awaited; tell whether it was all there."""
        if self.body_size < 0:
            size = self.decoder.int32()
            if size is None:
                return False
            rule.check(size, self.broker.options)
            self.body_size = size
        if self._take_body is None:
            return read_batch(self, now_ns)
        body = self.decoder.take(self.body_size)
        if body is None:
            return False
        self.body_of = None
        self._take_body(self, body, now_ns)
        return True

    def _cut_short(self) -> None:
        """End the connection, with the error of the command whose body has not come whole, if there is one."""
        if self.body_of is None:
            self.close()
        else:
            arrived = self.batch.arrived if self.batch else -1
            self.fail(self.body_of.cut_short(self.body_size, arrived, len(self.decoder)))

    # -- for the commands ----------------------------------------------------------------------------------------

    def authenticate(self, secret: bytes, now_ns: int) -> None:
        """Take the secret of an AUTH. Raises FatalClientError."""
        raise FatalClientError(E_AUTH_DISABLED, "AUTH disabled")

    def topic(self, name: str, verb: str, channel: str = "") -> "Topic":
        """Return the topic that ``verb`` names, a new one if there is none, to publish or to subscribe to ``channel``.

        Raises FatalClientError if it cannot be created.
        """
        try:
            return self.broker.topic(name)
        except (StorageError, LimitReached) as error:
            raise failed(verb, error) from None

    def publish_failed(self, reply: int, verb: str, error: StorageError) -> None:
        """An OK did not come true: the client gets the error in its place, and nothing after it."""
        if reply >= len(self.replies):
            return  # an earlier one failed already
        del self.replies[reply:]
        self.fail(failed(verb, error))

    def subscribed(self, consumer: Consumer) -> None:
        """The client is a consumer now."""
        self.consumer = consumer
        if self._unread_since_ns:
            consumer.block()

    def unsubscribed(self) -> None:
        """The channel is gone, and with it the subscription."""
        self.consumer = None
        self.close()

    def send(self, frames: bytes) -> None:
        """Send messages at the end of the turn."""
        self.frames.append(frames)
        self.broker.output[self] = None

    # -- output --------------------------------------------------------------------------------------------------

    def hold(self, first: int) -> None:
        """Keep the replies from number ``first`` on back beyond the turn: an fsync has to come first (Publisher)."""
        if self._held is None:
            self._held = HeldReplies()
        self._held.hold(self.replies, first)
        self.replies = []

    def let_go(self, failures: Sequence[Failure]) -> None:
        """The fsync for the oldest hold has come, all its replies may leave up to one that has failed (Publisher)."""
        held = self._held
        if not held:
            return  # the connection is gone, or has heard of a failure before this
        first, replies = held.take_oldest()
        if failures:
            reply, verb, error = min(failures, key=itemgetter(0))
            if reply - first < len(replies):  # else an append in the same turn has failed before it
                replies[reply - first :] = [encoder.error(failed(verb, error).payload)]
                held.drop_waiting()
                self.replies.clear()
                self.close()
        held.let_out(replies)
        self.broker.output[self] = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will be said as it was until now: close, or see ``take_upgrade``."""
        return (self.closing or self._upgrade is not None) and not self._held

    def take_output(self) -> list[bytes]:
        """Return what is to be written, replies first, and forget it."""
        if self._held is not None:
            self._held.queue(self.replies)
            self.replies = self._held.take_free()
            if not self._held:
                self._held = None
        output = self.replies + self.frames
        if self.replies:
            self.replies = []
        if self.frames:
            self.frames = []
            if self.consumer is not None:
                self.consumer.written()
        return output

    def pause_writing(self, now_ns: int) -> None:
        """The peer does not read what was written: send it no messages until it does."""
        self._unread_since_ns = now_ns
        if not self.identity.heartbeat_interval_ns:
            self.broker.timers.schedule(self._timer, now_ns + _PATIENCE_NS)
        if self.consumer is not None:
            self.consumer.block()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._unread_since_ns = 0
        if self.consumer is not None and not self.closing:
            self.consumer.unblock()

    # -- upgrades ------------------------------------------------------------------------------------------------

    def await_upgrade(self) -> None:
        """Read nothing more until ``upgraded``: the answer to IDENTIFY comes first, then what it has agreed on."""
        self._upgrading = True
        self._upgrade = self.decoder.drain()
        if self._peer is not None:
            self._peer.pause_reading()

    def take_upgrade(self) -> bytes | None:
        """Return what came after the IDENTIFY whose upgrade is due now; None if none is."""
        pipelined, self._upgrade = self._upgrade, None
        return None if self.closing else pipelined

    def upgraded(self, now_ns: int) -> None:
        """Go on: what comes now is plain again. The turn has to end, for the timer."""
        self._upgrading = False
        if self.security is not None and self.state == UNSECURED:
            self.state = INIT
        self.restart_clock(now_ns)

    # -- life ----------------------------------------------------------------------------------------------------

    def restart_clock(self, now_ns: int) -> None:
        """Count heartbeats and the read deadline from now (PROTOCOL 1.8)."""
        interval_ns = self.identity.heartbeat_interval_ns
        if not interval_ns:
            self._read_due_ns = 0
            return
        self._heartbeat_due_ns = now_ns + interval_ns if self._magic else 0
        self._read_due_ns = now_ns + 2 * interval_ns
        self.broker.timers.schedule(self._timer, self._next_due_ns())

    def _limit_half_a_command(self, done: bool, now_ns: int) -> None:
        """Without heartbeats there is no deadline, but for the rest of a command that has begun."""
        if self.body_of is None and not self.decoder:
            self._read_due_ns = 0
        elif done or not self._read_due_ns:
            self._read_due_ns = now_ns + _PATIENCE_NS
            self.broker.timers.schedule(self._timer, self._read_due_ns)

    def _without_heartbeats(self, now_ns: int) -> int:
        """Do what is due, and return what is next, for a client that wants no heartbeats."""
        unread_due_ns = self._unread_since_ns + _PATIENCE_NS if self._unread_since_ns else 0
        if unread_due_ns and now_ns >= unread_due_ns:
            self.close()
        elif self._read_due_ns and now_ns >= self._read_due_ns:
            self._cut_short()
        else:
            return min(filter(None, (unread_due_ns, self._read_due_ns)), default=0)
        return 0

    def _next_due_ns(self) -> int:
        return min(self._heartbeat_due_ns or self._read_due_ns, self._read_due_ns)

    def _on_timer(self, now_ns: int) -> int:
        interval_ns = self.identity.heartbeat_interval_ns
        if self.closing or self._upgrading:  # an upgrade has its own deadline, and no heartbeats
            return 0
        if not interval_ns:
            return self._without_heartbeats(now_ns)
        if self._unread_since_ns and now_ns - self._unread_since_ns >= interval_ns:
            self.close()
            return 0
        if self._heartbeat_due_ns and now_ns >= self._heartbeat_due_ns:
            self._heartbeat_due_ns += interval_ns * ((now_ns - self._heartbeat_due_ns) // interval_ns + 1)
            if not self._unread_since_ns:
                if self._held is None:
                    self._held = HeldReplies()
                self._held.let_out([encoder.HEARTBEAT])  # replies may have to wait for a slow disk
                self.broker.output[self] = None
        if now_ns >= self._read_due_ns:
            self._cut_short()
            return 0
        return self._next_due_ns()

    def fail(self, error: FatalClientError) -> None:
        """Tell the client what is wrong and close."""
        self.replies.append(encoder.error(error.payload))
        self.close()

    def close(self) -> None:
        """Take no more commands; the connection ends when what is to be sent has been written."""
        self.closing = True
        if self.consumer is not None:
            self.consumer.block()
        self.broker.output[self] = None

    def closed(self) -> None:
        """The connection is gone: give back what the client held and let go of everything."""
        self.closing = True
        self._peer = None  # each holds the other, and short connections must not wait for the garbage collector
        self.replies.clear()
        self._held = None
        self.broker.timers.cancel(self._timer)
        self.broker.forget(self)
        if self.consumer is not None:
            consumer, self.consumer = self.consumer, None
            consumer.leave()

    def flush(self) -> None:
        """Let the connection write."""
        if self._peer is not None:
            self._peer.flush()
