"""PUB, MPUB and DPUB of a V2 session (PROTOCOL 1.4). Hot."""

from struct import Struct
from typing import TYPE_CHECKING, Final

from pynsqd.core import bodies
from pynsqd.core.incoming_batch import IncomingBatch
from pynsqd.wire import encoder
from pynsqd.wire.errors import E_BAD_BODY, E_BAD_TOPIC, FatalClientError, invalid
from pynsqd.wire.names import is_valid_name
from pynsqd.wire.numbers import ms_to_ns, parse_uint64
from pynsqd.wire.quote import quote, text

if TYPE_CHECKING:
    from pynsqd.core.publishes import Publishes
    from pynsqd.core.session import Session

_INT32: Final = Struct(">i")


def pub(session: "Session", params: list[bytes], now_ns: int) -> None:
    """PUB: one message."""
    if len(params) < 2:
        raise invalid("PUB insufficient number of parameters")
    session.expect_body(bodies.PUB, _pub_body, topic_name(session, "PUB", params[1]))


def _pub_body(session: "Session", body: bytes, now_ns: int) -> None:
    session.pub_topic = session.body_topic
    pub_again(session, body)
    if session.pub_topic in session.topics:
        session.pub_line = f"PUB {session.pub_topic}\n".encode()


def pub_again(session: "Session", body: bytes) -> None:
    """Publish to the topic of the PUB before, whose line has come again."""
    # What ``_accept`` does, without the call: that costs a PUB that comes alone 0.3 µs.
    name = session.pub_topic
    topic = session.topics.get(name) or session.topic(name, "PUB")
    session.published[name] = session.published.get(name, 0) + 1
    session.replies.append(encoder.OK)
    topic.publishes.publish(body, session, "PUB")


def take_lone_pub(session: "Session", data: bytes) -> bool:
    """Publish if ``data`` is one whole PUB with the line of the last one, and tell whether it is.

    So a publisher sends them that waits for each answer. Nothing may be with the decoder then; that it need not see
    the bytes saves 130 of a PUB's 880 bytecodes, 1 µs. Raises FatalClientError.
    """
    line = session.pub_line
    body_at = len(line) + 4
    size = len(data) - body_at
    if not 0 < size <= session.broker.options.max_msg_size or not data.startswith(line):
        return False
    if _INT32.unpack_from(data, body_at - 4)[0] != size:
        return False
    pub_again(session, data[body_at:])
    return True


def dpub(session: "Session", params: list[bytes], now_ns: int) -> None:
    """DPUB: one message, to be delivered later."""
    if len(params) < 3:
        raise invalid("DPUB insufficient number of parameters")
    name = topic_name(session, "DPUB", params[1])
    ms = parse_uint64(params[2])
    if ms is None:
        raise invalid(f"DPUB could not parse timeout {text(params[2])}")
    delay_ns = ms_to_ns(ms)
    longest_ns = session.broker.options.max_req_timeout_ns
    if not 0 <= delay_ns <= longest_ns:
        raise invalid(f"DPUB timeout {ms} out of range 0-{longest_ns // 1_000_000}")
    session.expect_body(bodies.DPUB, _dpub_body, name, delay_ns)


def _dpub_body(session: "Session", body: bytes, now_ns: int) -> None:
    name, delay_ns = session.body_topic, session.body_delay_ns
    if not delay_ns:
        _accept(session, name, 1, "DPUB").publish(body, session, "DPUB")
    else:
        _accept(session, name, 1, "DPUB").publish_deferred(body, delay_ns, session, "DPUB")


def mpub(session: "Session", params: list[bytes], now_ns: int) -> None:
    """MPUB: a batch of messages, all or nothing."""
    if len(params) < 2:
        raise invalid("MPUB insufficient number of parameters")
    # nsqd says its code twice here.
    name = topic_name(session, "E_BAD_TOPIC MPUB", params[1])
    session.topic(name, "MPUB")
    session.expect_body(bodies.MPUB, None, name)


def read_batch(session: "Session", now_ns: int) -> bool:
    """Go on with the body of an MPUB as it comes, publish with its last message; tell whether that was there."""
    decoder = session.decoder
    batch = session.batch
    if batch is None:
        count = decoder.int32()
        if count is None:
            return False
        if not 0 < count <= (session.broker.options.max_body_size - 4) // 5:
            raise FatalClientError(E_BAD_BODY, f"MPUB invalid message count {count}")
        batch = session.batch = IncomingBatch(session.broker.options, count, session.body_size - 4)
    if not batch.read(decoder):
        if batch.worth_staging:
            topic = session.broker.topics.get(session.body_topic)
            if topic is not None:
                topic.publishes.stage(batch, session.broker.wall_ns(now_ns))
        return False
    session.body_of = session.batch = None
    _accept(session, session.body_topic, batch.count, "MPUB").publish_batch(batch, session, "MPUB")
    return True


def drop_batch(session: "Session") -> None:
    """The rest of an MPUB will not come."""
    batch, session.batch = session.batch, None
    topic = session.broker.topics.get(session.body_topic)
    if batch is not None and topic is not None:
        topic.publishes.unstage(batch)


def _accept(session: "Session", name: str, count: int, verb: str) -> "Publishes":
    """Answer OK, count ``count`` messages as published, and return where they go."""
    topic = session.topics.get(name) or session.topic(name, verb)
    session.published[name] = session.published.get(name, 0) + count
    session.replies.append(encoder.OK)
    return topic.publishes


def topic_name(session: "Session", verb: str, raw: bytes) -> str:
    """Return the name of a topic, as ``verb`` was given it. Raises FatalClientError if it is none."""
    name = text(raw)
    if name not in session.broker.topics and not is_valid_name(name):
        raise FatalClientError(E_BAD_TOPIC, f"{verb} topic name {quote(raw)} is not valid")
    return name
