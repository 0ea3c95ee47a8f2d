"""SUB, RDY, FIN, REQ, TOUCH and CLS of a V2 session (PROTOCOL 1.4, 1.10). Hot."""

from typing import TYPE_CHECKING

from pynsqd.core.consumer import Consumer
from pynsqd.core.publishing import topic_name
from pynsqd.core.transitions import CLOSING, SUBSCRIBED, illegal
from pynsqd.wire import encoder
from pynsqd.wire.constants import ID_LENGTH
from pynsqd.wire.errors import (
    E_BAD_CHANNEL,
    E_SUB_FAILED,
    ClientError,
    FatalClientError,
    LimitReached,
    StorageError,
    failed,
    invalid,
)
from pynsqd.wire.names import is_valid_name
from pynsqd.wire.numbers import ms_to_ns, parse_uint64, signed64
from pynsqd.wire.quote import quote, text

if TYPE_CHECKING:
    from pynsqd.core.session import Session


def sub(session: "Session", params: list[bytes], now_ns: int) -> None:
    """SUB: become a consumer of a channel, a new one if there is none."""
    identity = session.identity
    if not identity.heartbeat_interval_ns:
        raise invalid("cannot SUB with heartbeats disabled")
    if len(params) < 3:
        raise invalid("SUB insufficient number of parameters")
    topic = topic_name(session, "SUB", params[1])
    channel_name = text(params[2])
    if not is_valid_name(channel_name):
        raise FatalClientError(E_BAD_CHANNEL, f"SUB channel name {quote(params[2])} is not valid")
    # A refused SUB leaves topic and channel behind, as in nsqd.
    try:
        channel = session.topic(topic, "SUB", channel_name).channel(channel_name)
    except LimitReached as error:
        raise failed("SUB", error) from None
    limit = session.broker.options.max_channel_consumers
    if limit and len(channel.consumers) >= limit:
        what = f"SUB failed consumers for {topic}:{channel_name} exceeds limit of {limit}"
        raise FatalClientError(E_SUB_FAILED, what)
    consumer = Consumer(channel, session.send, identity.msg_timeout_ns, identity.sample_rate)
    channel.subscribe(consumer, session.unsubscribed)
    session.subscribed(consumer)
    session.state = SUBSCRIBED
    session.replies.append(encoder.OK)


def rdy(session: "Session", params: list[bytes], now_ns: int) -> None:
    """RDY: how many messages may be in flight."""
    if session.state == CLOSING:
        return
    count = 1
    if len(params) > 1:
        value = parse_uint64(params[1])
        if value is None:
            raise invalid(f"RDY could not parse count {text(params[1])}")
        count = signed64(value)
    most = session.broker.options.max_rdy_count
    if not 0 <= count <= most:
        raise invalid(f"RDY count {count} out of range 0-{most}")
    _consumer(session).set_rdy(count)


def finish(session: "Session", ids: list[bytes], now_ns: int) -> None:
    """FIN a run of messages; each that is not ours is answered, the others are not held up."""
    consumer = session.consumer
    if consumer is None:
        raise illegal(session.state, b"FIN")
    done = consumer.finish(ids, now_ns)
    while done < len(ids):
        session.replies.append(encoder.error(_not_ours(consumer, "FIN", ids[done]).payload))
        ids = ids[done + 1 :]
        done = consumer.finish(ids, now_ns)


def fin(session: "Session", params: list[bytes], now_ns: int) -> None:
    """FIN: a message is done with."""
    finish(session, [_message_id("FIN", params, 2)], now_ns)


def req(session: "Session", params: list[bytes], now_ns: int) -> None:
    """REQ: deliver a message again, at once or later."""
    one = _message_id("REQ", params, 3)
    ms = parse_uint64(params[2])
    if ms is None:
        raise invalid(f"REQ could not parse timeout {text(params[2])}")
    # Out of range is no error here: nsqd brings the delay into the range.
    delay_ns = min(max(ms_to_ns(ms), 0), session.broker.options.max_req_timeout_ns)
    consumer = _consumer(session)
    ids = [one]
    if len(params) == 3:  # a consumer that fails gives back all it has: take what follows with the same delay, too
        ids += session.decoder.ids_between(b"REQ ", b" %b\n" % params[2])
    while ids:
        try:
            done = consumer.requeue(ids, delay_ns, now_ns)
        except StorageError as error:
            refusals = [_not_requeued(consumer, one, error) for one in ids]
            done = len(ids)
        else:
            refusals = [_not_ours(consumer, "REQ", one) for one in ids[done : done + 1]]
        session.replies += [encoder.error(refusal.payload) for refusal in refusals]
        ids = ids[done + 1 :]


def _not_requeued(consumer: Consumer, one: bytes, error: StorageError) -> ClientError:
    if one not in consumer.in_flight.entries:
        return _not_ours(consumer, "REQ", one)
    return ClientError("E_REQ_FAILED", f"REQ {text(one)} failed {error}")


def touch(session: "Session", params: list[bytes], now_ns: int) -> None:
    """TOUCH: the timeout of a message starts again."""
    one = _message_id("TOUCH", params, 2)
    consumer = _consumer(session)
    if not consumer.touch(one, now_ns, session.identity.msg_timeout_ns):
        raise _not_ours(consumer, "TOUCH", one)


def cls(session: "Session", params: list[bytes], now_ns: int) -> None:
    """CLS: no more messages; those in flight may still be finished."""
    _consumer(session).set_rdy(0)
    session.state = CLOSING
    session.replies.append(encoder.CLOSE_WAIT)


def _consumer(session: "Session") -> Consumer:
    """Return the consumer of a session that is past SUB."""
    assert session.consumer is not None  # noqa: S101 - the table of transitions guarantees it
    return session.consumer


def _message_id(verb: str, params: list[bytes], arity: int) -> bytes:
    if len(params) < arity:
        raise invalid(f"{verb} insufficient number of params")
    if len(params[1]) != ID_LENGTH:
        raise invalid("invalid message ID")
    return params[1]


def _not_ours(consumer: Consumer, verb: str, one: bytes) -> ClientError:
    owned = consumer.channel.owner_of(one) is not None
    why = "client does not own message" if owned else "ID not in flight"
    return ClientError(f"E_{verb}_FAILED", f"{verb} {text(one)} failed {why}")
