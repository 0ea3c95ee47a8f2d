"""One V2 client, sans-I/O: bytes in, replies and message frames out (PROTOCOL 1). Hot.

What the commands do is in ``commands`` and the files it names; they take the session.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pynsqd.core.bodies import BodyRule, TakeBody
from pynsqd.core.commands import COMMANDS
from pynsqd.core.consumer import Consumer
from pynsqd.core.consuming import finish
from pynsqd.core.deadlines import Deadlines
from pynsqd.core.group_commit import HeldReplies
from pynsqd.core.peer import Peer
from pynsqd.core.publisher import Failure
from pynsqd.core.publishing import drop_batch, pub_again, read_batch, take_lone_pub
from pynsqd.core.security import Security
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


class Session:
    """The protocol state of one connection.

    ``receive`` and ``eof`` take what the peer sent. What is to be sent back gathers in ``replies`` (in the order of
    the commands) and ``frames`` (messages, heartbeats) until ``take_output``, which is only called once the turn is
    committed.
    """

    __slots__ = (
        "_held",
        "_magic",
        "_peer",
        "_pub_ended",
        "_take_body",
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
        "deadlines",
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
        self.deadlines = Deadlines(broker.timers, self._on_timer)
        self.frames: list[bytes] = []
        self._held: HeldReplies | None = None  # while replies wait for an fsync
        self.grant: Grant | None = None  # what an auth server said
        self.identity = unidentified(remote_address, broker.limits)
        self.pub_line = b""  # the line of the last PUB, see Decoder.same_again, and its topic
        self.pub_topic = ""
        self._pub_ended = False  # the last read, with a PUB of that line
        self.published: dict[str, int] = {}  # topic to messages, for /stats
        self.remote_address = remote_address
        self.replies: list[bytes] = []
        self.security: Security | None = None  # what TLS has shown
        self.state = UNSECURED if broker.options.tls_required else INIT
        self.topics = broker.topics  # those that need no ``topic`` to publish to
        self._upgrade: bytes | None = None  # what came after an IDENTIFY whose upgrade is due
        self._upgrading = False
        self.restart_clock(now_ns)

    # -- input ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take bytes from the peer and carry out every command that is complete."""
        if self.closing:
            return
        decoder = self.decoder
        try:
            if self._pub_ended and take_lone_pub(self, data):
                done = True
            else:
                self._pub_ended = False
                decoder.feed(data)
                if not self._magic and not self._read_magic(now_ns):
                    return
                done = self._run(decoder, now_ns)
        except LineTooLong:
            self.close()
            return
        except FatalClientError as error:
            self.fail(error)
            return
        deadlines = self.deadlines
        if not deadlines.silence_ns:
            if self.body_of is not None or decoder:
                deadlines.limit_rest(done, now_ns)
            else:
                deadlines.read_due_ns = 0
        elif done:
            deadlines.read_due_ns = now_ns + deadlines.silence_ns

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
                    self._pub_ended = True
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
        if self.deadlines.unread_since_ns:
            consumer.block()

    def unsubscribed(self) -> None:
        """The channel is gone, and with it the subscription."""
        self.consumer = None
        self.close()

    def send(self, frames: bytes) -> None:
        """Send messages, or a heartbeat, at the end of the turn: behind the replies, and whatever those wait for."""
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
        if not self._held:
            return  # the connection is gone, or has heard of a failure before this
        if self._held.settle_oldest(failures):
            self.replies.clear()
            self.close()
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
        output = self.replies
        if output:
            self.replies = []
        if self.frames:
            output = output + self.frames  # not in place: it may still be ``replies``
            self.frames = []
            if self.consumer is not None:
                self.consumer.written()
        return output

    def pause_writing(self, now_ns: int) -> None:
        """The peer does not read what was written: send it no messages until it does."""
        self.deadlines.stop_reading(now_ns)
        if self.consumer is not None:
            self.consumer.block()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.deadlines.unread_since_ns = 0
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
        self.deadlines.restart(self.identity.heartbeat_interval_ns, now_ns, heartbeats=self._magic)

    def _on_timer(self, now_ns: int) -> int:
        deadlines = self.deadlines
        if self.closing or self._upgrading:  # an upgrade has its own deadline, and no heartbeats
            return 0
        if deadlines.unread_too_long(now_ns):
            self.close()
            return 0
        if deadlines.silent_too_long(now_ns):
            self._cut_short()
            return 0
        if deadlines.take_heartbeat(now_ns):
            self.send(encoder.HEARTBEAT)  # not a reply: those may have to wait for a slow disk
        return deadlines.next_due_ns

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
        self.deadlines.cancel()
        self.broker.forget(self)
        if self.batch is not None:
            drop_batch(self)
        if self.consumer is not None:
            consumer, self.consumer = self.consumer, None
            consumer.leave()

    def flush(self) -> None:
        """Let the connection write."""
        if self._peer is not None:
            self._peer.flush()
