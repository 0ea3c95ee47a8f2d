"""One V2 client, sans-I/O: bytes in, replies and message frames out (PROTOCOL 1). Hot."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from pynsqd.core.bodies import BODIES, BodyRule
from pynsqd.core.consumer import Consumer
from pynsqd.core.timers import Timer
from pynsqd.core.transitions import CLOSING, INIT, LEGAL, SUBSCRIBED
from pynsqd.wire import encoder
from pynsqd.wire.constants import ID_LENGTH, MAGIC_V2
from pynsqd.wire.decoder import BadMessageSize, BatchOverrun, Decoder, LineTooLong
from pynsqd.wire.errors import (
    E_AUTH_DISABLED,
    E_BAD_BODY,
    E_BAD_CHANNEL,
    E_BAD_MESSAGE,
    E_BAD_PROTOCOL,
    E_BAD_TOPIC,
    E_INVALID,
    E_SUB_FAILED,
    ClientError,
    FatalClientError,
    StorageError,
)
from pynsqd.wire.identify import Identity, answer, negotiate
from pynsqd.wire.names import is_valid_name
from pynsqd.wire.numbers import ms_to_ns, parse_uint64, signed64
from pynsqd.wire.quote import quote

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.topic import Topic

DEFAULT_HEARTBEAT_NS: Final = 30_000_000_000
_DEFAULT_OUTPUT_BUFFER: Final = 16384


class Peer(Protocol):
    """The connection of a session, as the session sees it."""

    def flush(self) -> None:
        """Write what ``take_output`` gives and close if the session is closing. Called at the end of a turn."""
        ...


class Session:
    """The protocol state of one connection.

    ``receive`` and ``eof`` take what the peer sent. What is to be sent back gathers in ``replies`` (in the order of
    the commands) and ``frames`` (messages) until ``take_output``, which is only called once the turn is committed.
    """

    __slots__ = (
        "_batch",
        "_batch_budget",
        "_batch_count",
        "_body_of",
        "_body_params",
        "_body_size",
        "_broker",
        "_decoder",
        "_heartbeat_due_ns",
        "_held",
        "_magic",
        "_peer",
        "_read_due_ns",
        "_timer",
        "_unread_since_ns",
        "closing",
        "connect_wall_ns",
        "consumer",
        "frames",
        "identified",
        "identity",
        "published",
        "remote_address",
        "replies",
        "state",
    )

    def __init__(self, broker: "Broker", peer: Peer, remote_address: str, now_ns: int) -> None:
        host = remote_address.rpartition(":")[0].strip("[]") or remote_address
        self._broker = broker
        self._peer: Peer | None = peer
        self._decoder = Decoder()
        self._magic = False
        self._body_of: BodyRule | None = None  # the command whose body is awaited
        self._body_params: tuple[str, int] = ("", 0)  # its topic and delay in ns
        self._body_size = -1
        self._batch: list[bytes] | None = None  # the messages of an MPUB so far
        self._batch_count = -1
        self._batch_budget = 0
        self.closing = False
        self.connect_wall_ns = broker.wall_ns(now_ns)
        self.consumer: Consumer | None = None
        self.frames: list[bytes] = []
        self._held = 0  # fsyncs that the replies wait for
        self.identified = False
        self.identity = Identity(
            client_id=host,
            hostname=host,
            user_agent="",
            heartbeat_interval_ns=DEFAULT_HEARTBEAT_NS,
            output_buffer_size=_DEFAULT_OUTPUT_BUFFER,
            output_buffer_timeout_ns=broker.limits.output_buffer_timeout_ns,
            sample_rate=0,
            msg_timeout_ns=broker.limits.msg_timeout_ns,
            negotiated=False,
            tls=False,
            deflate=False,
            deflate_level=0,
            snappy=False,
        )
        self.published: dict[str, int] = {}  # topic to messages, for /stats
        self.remote_address = remote_address
        self.replies: list[bytes] = []
        self.state = INIT
        self._unread_since_ns = 0
        self._timer = Timer(self._on_timer)
        self._heartbeat_due_ns = 0
        self._read_due_ns = 0
        self._restart_clock(now_ns)

    # -- input ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take bytes from the peer and carry out every command that is complete."""
        if self.closing:
            return
        decoder = self._decoder
        decoder.feed(data)
        try:
            if not self._magic and not self._read_magic(now_ns):
                return
            done = self._run(decoder, now_ns)
        except LineTooLong:
            self.close()
            return
        except FatalClientError as error:
            self._fail(error)
            return
        if done:
            # nsqd sets its deadline before each line, so only a whole command moves it.
            self._read_due_ns = now_ns + 2 * self.identity.heartbeat_interval_ns

    def eof(self) -> None:
        """The peer will send no more: a body that is cut short is answered, then the connection ends."""
        if not self.closing:
            self._cut_short()

    def _run(self, decoder: Decoder, now_ns: int) -> bool:
        """Carry out what has come; tell whether that was at least one command."""
        done = False
        while not self.closing:
            if self._body_of is not None:
                if not self._read_body(self._body_of, now_ns):
                    break
                done = True
                continue
            ids = decoder.fin_run()
            if ids:
                self._finish(ids, now_ns)
                done = True
                continue
            try:
                line = decoder.line()
            except LineTooLong:
                self.close()
                break
            if line is None:
                break
            self._command(line, now_ns)
            if self._body_of is None:
                done = True
        return done

    def _read_magic(self, now_ns: int) -> bool:
        magic = self._decoder.take(len(MAGIC_V2))
        if magic is None:
            return False
        if magic != MAGIC_V2:
            raise FatalClientError(E_BAD_PROTOCOL)
        self._magic = True
        self._restart_clock(now_ns)
        return True

    def _command(self, line: bytes, now_ns: int) -> None:
        params = line.split(b" ")
        name = params[0]
        legal = LEGAL.get(name)
        if legal is None:
            _invalid(f"invalid command {_text(name)}")
        if self.state not in legal:
            _invalid(f"cannot {name.decode()} in current state")
        try:
            _COMMANDS[name](self, params, now_ns)
        except FatalClientError:
            raise
        except ClientError as error:
            self.replies.append(encoder.error(error.payload))

    # -- commands with a body ------------------------------------------------------------------------------------

    def _read_body(self, rule: BodyRule, now_ns: int) -> bool:
        """Go on with the body that is awaited; tell whether it was all there."""
        if self._body_size < 0:
            size = self._decoder.int32()
            if size is None:
                return False
            rule.check(size, self._broker.options)
            self._body_size = size
            self._batch_budget = size
        if rule.verb == "MPUB":
            return self._read_batch()
        body = self._decoder.take(self._body_size)
        if body is None:
            return False
        self._end_of_body()
        _BODY_COMMANDS[rule.verb](self, body, now_ns)
        return True

    def _read_batch(self) -> bool:
        """Read the messages of an MPUB as they come; nothing is published before the last."""
        decoder = self._decoder
        options = self._broker.options
        if self._batch is None:
            count = decoder.int32()
            if count is None:
                return False
            if not 0 < count <= (options.max_body_size - 4) // 5:
                raise FatalClientError(E_BAD_BODY, f"MPUB invalid message count {count}")
            self._batch = []
            self._batch_count = count
            self._batch_budget -= 4
        bodies, count = self._batch, self._batch_count
        try:
            self._batch_budget = decoder.messages(bodies, count, self._batch_budget, options.max_msg_size)
        except BadMessageSize as bad:
            if bad.size > 0:
                text = f"MPUB message too big {bad.size} > {options.max_msg_size}"
            else:
                text = f"MPUB invalid message({bad.index}) body size {bad.size}"
            raise FatalClientError(E_BAD_MESSAGE, text) from None
        except BatchOverrun:
            self._refuse_batch_size()
        if len(bodies) < count:
            return False
        if self._batch_budget:
            self._refuse_batch_size()
        topic = self._body_params[0]
        self._end_of_body()
        self._publish(topic, bodies, "MPUB")
        return True

    def _refuse_batch_size(self) -> NoReturn:
        raise FatalClientError(E_BAD_BODY, f"MPUB body size {self._body_size} does not match its messages")

    def _end_of_body(self) -> None:
        self._body_of = None
        self._body_size = -1
        self._batch = None
        self._batch_count = -1

    def _cut_short(self) -> None:
        """End the connection, with the error of the command whose body has not come whole, if there is one."""
        rule = self._body_of
        if rule is None:
            self.close()
        elif self._body_size < 0:
            self._fail(FatalClientError(rule.code, f"{rule.verb} failed to read {rule.size_name}"))
        elif rule.verb != "MPUB":
            self._fail(FatalClientError(rule.code, f"{rule.verb} failed to read {rule.body_name}"))
        elif self._batch is None:
            self._fail(FatalClientError(E_BAD_BODY, "MPUB failed to read message count"))
        elif len(self._decoder) < 4:
            text = f"MPUB failed to read message({len(self._batch)}) body size"
            self._fail(FatalClientError(E_BAD_MESSAGE, text))
        else:
            self._fail(FatalClientError(E_BAD_MESSAGE, "MPUB failed to read message body"))

    def _expect_body(self, verb: str, topic: str = "", delay_ns: int = 0) -> None:
        self._body_of = BODIES[verb]
        self._body_params = (topic, delay_ns)

    def _identify(self, params: list[bytes], now_ns: int) -> None:
        self._expect_body("IDENTIFY")

    def _auth(self, params: list[bytes], now_ns: int) -> None:
        if len(params) != 1:
            _invalid("AUTH invalid number of parameters")
        self._expect_body("AUTH")

    def _pub(self, params: list[bytes], now_ns: int) -> None:
        if len(params) < 2:
            _invalid("PUB insufficient number of parameters")
        self._expect_body("PUB", self._topic_name("PUB", params[1]))

    def _mpub(self, params: list[bytes], now_ns: int) -> None:
        if len(params) < 2:
            _invalid("MPUB insufficient number of parameters")
        # nsqd says its code twice here.
        topic = self._topic_name("E_BAD_TOPIC MPUB", params[1])
        self._topic(topic, "MPUB")
        self._expect_body("MPUB", topic)

    def _dpub(self, params: list[bytes], now_ns: int) -> None:
        if len(params) < 3:
            _invalid("DPUB insufficient number of parameters")
        topic = self._topic_name("DPUB", params[1])
        ms = parse_uint64(params[2])
        if ms is None:
            _invalid(f"DPUB could not parse timeout {_text(params[2])}")
        delay_ns = ms_to_ns(ms)
        longest_ns = self._broker.options.max_req_timeout_ns
        if not 0 <= delay_ns <= longest_ns:
            _invalid(f"DPUB timeout {ms} out of range 0-{longest_ns // 1_000_000}")
        self._expect_body("DPUB", topic, delay_ns)

    def _topic_name(self, verb: str, raw: bytes) -> str:
        name = _text(raw)
        if name not in self._broker.topics and not is_valid_name(name):
            raise FatalClientError(E_BAD_TOPIC, f"{verb} topic name {quote(raw)} is not valid")
        return name

    def _pub_body(self, body: bytes, now_ns: int) -> None:
        self._publish(self._body_params[0], [body], "PUB")

    def _dpub_body(self, body: bytes, now_ns: int) -> None:
        topic, delay_ns = self._body_params
        if not delay_ns:
            self._publish(topic, [body], "DPUB")
            return
        found = self._topic(topic, "DPUB")
        self._count_published(topic, 1)
        self.replies.append(encoder.OK)
        found.publish_deferred(body, delay_ns, self, "DPUB")

    def _publish(self, topic: str, bodies: list[bytes], verb: str) -> None:
        found = self._topic(topic, verb)
        self._count_published(topic, len(bodies))
        self.replies.append(encoder.OK)
        found.publish(bodies, self, verb)

    def _topic(self, name: str, verb: str) -> "Topic":
        """Return the topic, a new one if there is none."""
        try:
            return self._broker.topic(name)
        except StorageError as error:
            raise FatalClientError(f"E_{verb}_FAILED", f"{verb} failed {error}") from None

    def _count_published(self, topic: str, count: int) -> None:
        self.published[topic] = self.published.get(topic, 0) + count

    def publish_failed(self, reply: int, verb: str, error: StorageError) -> None:
        """An OK did not come true: the client gets the error in its place, and nothing after it."""
        if reply >= len(self.replies):
            return  # an earlier one failed already
        del self.replies[reply:]
        self._fail(FatalClientError(f"E_{verb}_FAILED", f"{verb} failed {error}"))

    def _identify_body(self, body: bytes, now_ns: int) -> None:
        limits = self._broker.limits
        self.identity = negotiate(body, self.identity, limits)
        self.identified = True
        self.replies.append(encoder.response(answer(self.identity, limits)))
        self._restart_clock(now_ns)

    def _auth_body(self, body: bytes, now_ns: int) -> None:
        raise FatalClientError(E_AUTH_DISABLED, "AUTH disabled")

    # -- consuming -----------------------------------------------------------------------------------------------

    def _sub(self, params: list[bytes], now_ns: int) -> None:
        if not self.identity.heartbeat_interval_ns:
            _invalid("cannot SUB with heartbeats disabled")
        if len(params) < 3:
            _invalid("SUB insufficient number of parameters")
        topic_name = self._topic_name("SUB", params[1])
        channel_name = _text(params[2])
        if not is_valid_name(channel_name):
            raise FatalClientError(E_BAD_CHANNEL, f"SUB channel name {quote(params[2])} is not valid")
        # A refused SUB leaves topic and channel behind, as in nsqd.
        channel = self._topic(topic_name, "SUB").channel(channel_name)
        limit = self._broker.options.max_channel_consumers
        if limit and len(channel.consumers) >= limit:
            text = f"SUB failed consumers for {topic_name}:{channel_name} exceeds limit of {limit}"
            raise FatalClientError(E_SUB_FAILED, text)
        self.consumer = Consumer(channel, self._send, self.identity.msg_timeout_ns, self.identity.sample_rate)
        channel.subscribe(self.consumer, self._unsubscribed)
        if self._unread_since_ns:
            self.consumer.block()
        self.state = SUBSCRIBED
        self.replies.append(encoder.OK)

    def _send(self, frames: bytes) -> None:
        self.frames.append(frames)
        self._broker.output[self] = None

    def _unsubscribed(self) -> None:
        """The channel is gone, and with it the subscription."""
        self.consumer = None
        self.close()

    def _rdy(self, params: list[bytes], now_ns: int) -> None:
        if self.state == CLOSING:
            return
        count = 1
        if len(params) > 1:
            value = parse_uint64(params[1])
            if value is None:
                _invalid(f"RDY could not parse count {_text(params[1])}")
            count = signed64(value)
        most = self._broker.options.max_rdy_count
        if not 0 <= count <= most:
            _invalid(f"RDY count {count} out of range 0-{most}")
        self._subscription.set_rdy(count)

    def _finish(self, ids: list[bytes], now_ns: int) -> None:
        """Finish a run of messages; each that is not ours is answered, the others are not held up."""
        if self.state == INIT:
            _invalid("cannot FIN in current state")
        consumer = self._subscription
        done = consumer.finish(ids, now_ns)
        while done < len(ids):
            self.replies.append(encoder.error(self._not_ours("FIN", ids[done]).payload))
            done += 1
            ids, done = ids[done:], 0
            done = consumer.finish(ids, now_ns)

    def _fin(self, params: list[bytes], now_ns: int) -> None:
        self._finish([self._message_id("FIN", params, 2)], now_ns)

    def _req(self, params: list[bytes], now_ns: int) -> None:
        message_id = self._message_id("REQ", params, 3)
        ms = parse_uint64(params[2])
        if ms is None:
            _invalid(f"REQ could not parse timeout {_text(params[2])}")
        # Out of range is no error here: nsqd brings the delay into the range.
        delay_ns = min(max(ms_to_ns(ms), 0), self._broker.options.max_req_timeout_ns)
        try:
            found = self._subscription.requeue(message_id, delay_ns, now_ns)
        except StorageError as error:
            raise ClientError("E_REQ_FAILED", f"REQ {_text(message_id)} failed {error}") from None
        if not found:
            raise self._not_ours("REQ", message_id)

    def _touch(self, params: list[bytes], now_ns: int) -> None:
        message_id = self._message_id("TOUCH", params, 2)
        if not self._subscription.touch(message_id, now_ns, self.identity.msg_timeout_ns):
            raise self._not_ours("TOUCH", message_id)

    def _message_id(self, verb: str, params: list[bytes], arity: int) -> bytes:
        if len(params) < arity:
            _invalid(f"{verb} insufficient number of params")
        if len(params[1]) != ID_LENGTH:
            _invalid("invalid message ID")
        return params[1]

    def _not_ours(self, verb: str, message_id: bytes) -> ClientError:
        owned = self._subscription.channel.owner_of(message_id) is not None
        why = "client does not own message" if owned else "ID not in flight"
        return ClientError(f"E_{verb}_FAILED", f"{verb} {_text(message_id)} failed {why}")

    def _cls(self, params: list[bytes], now_ns: int) -> None:
        self._subscription.set_rdy(0)
        self.state = CLOSING
        self.replies.append(encoder.CLOSE_WAIT)

    def _nop(self, params: list[bytes], now_ns: int) -> None:
        pass

    @property
    def _subscription(self) -> Consumer:
        """The consumer of a session that is past SUB."""
        assert self.consumer is not None  # noqa: S101 - the table of transitions guarantees it
        return self.consumer

    # -- output --------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep the replies back beyond the turn: an fsync has to come first."""
        self._held += 1

    def let_go(self) -> None:
        """One fsync has come; when all have, the replies may leave."""
        self._held -= 1
        self._broker.output[self] = None

    @property
    def finished(self) -> bool:
        """Whether the connection is to be closed: nothing more will be said."""
        return self.closing and not self._held

    def take_output(self) -> list[bytes]:
        """Return what is to be written, replies first, and forget it."""
        if self._held:
            output = self.frames
        else:
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
        if self.consumer is not None:
            self.consumer.block()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._unread_since_ns = 0
        if self.consumer is not None and not self.closing:
            self.consumer.unblock()

    # -- life ----------------------------------------------------------------------------------------------------

    def _restart_clock(self, now_ns: int) -> None:
        """Count heartbeats and the read deadline from now (PROTOCOL 1.8)."""
        interval_ns = self.identity.heartbeat_interval_ns
        if not interval_ns:
            return
        self._heartbeat_due_ns = now_ns + interval_ns if self._magic else 0
        self._read_due_ns = now_ns + 2 * interval_ns
        self._broker.timers.schedule(self._timer, self._next_due_ns())

    def _next_due_ns(self) -> int:
        return min(self._heartbeat_due_ns or self._read_due_ns, self._read_due_ns)

    def _on_timer(self, now_ns: int) -> int:
        interval_ns = self.identity.heartbeat_interval_ns
        if not interval_ns or self.closing:
            return 0
        if self._unread_since_ns and now_ns - self._unread_since_ns >= interval_ns:
            self.close()
            return 0
        if self._heartbeat_due_ns and now_ns >= self._heartbeat_due_ns:
            self._heartbeat_due_ns += interval_ns * ((now_ns - self._heartbeat_due_ns) // interval_ns + 1)
            if not self._unread_since_ns:
                self.replies.append(encoder.HEARTBEAT)
                self._broker.output[self] = None
        if now_ns >= self._read_due_ns:
            self._cut_short()
            return 0
        return self._next_due_ns()

    def _fail(self, error: FatalClientError) -> None:
        self.replies.append(encoder.error(error.payload))
        self.close()

    def close(self) -> None:
        """Take no more commands; the connection ends when what is to be sent has been written."""
        self.closing = True
        if self.consumer is not None:
            self.consumer.block()
        self._broker.output[self] = None

    def closed(self) -> None:
        """The connection is gone: give back what the client held and let go of everything."""
        self.closing = True
        self._peer = None  # each holds the other, and short connections must not wait for the garbage collector
        self.replies.clear()
        self._broker.timers.cancel(self._timer)
        self._broker.forget(self)
        if self.consumer is not None:
            consumer, self.consumer = self.consumer, None
            consumer.leave()

    def flush(self) -> None:
        """Let the connection write."""
        if self._peer is not None:
            self._peer.flush()


def _invalid(text: str) -> NoReturn:
    raise FatalClientError(E_INVALID, text)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


_COMMANDS: Final[dict[bytes, Callable[[Session, list[bytes], int], None]]] = {
    b"IDENTIFY": Session._identify,
    b"AUTH": Session._auth,
    b"SUB": Session._sub,
    b"PUB": Session._pub,
    b"MPUB": Session._mpub,
    b"DPUB": Session._dpub,
    b"RDY": Session._rdy,
    b"FIN": Session._fin,
    b"REQ": Session._req,
    b"TOUCH": Session._touch,
    b"CLS": Session._cls,
    b"NOP": Session._nop,
}

_BODY_COMMANDS: Final[dict[str, Callable[[Session, bytes, int], None]]] = {
    "IDENTIFY": Session._identify_body,
    "AUTH": Session._auth_body,
    "PUB": Session._pub_body,
    "DPUB": Session._dpub_body,
}
