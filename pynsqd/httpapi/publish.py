"""What POST /pub and POST /mpub ask for (PROTOCOL 2.2, 2.4). No sockets: both HTTP paths go through here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from struct import Struct
from typing import TYPE_CHECKING, Final

from pynsqd.core.gathered_batch import GatheredBatch
from pynsqd.runtime.http import HttpError, Reply, argument, failure, parse_query, plain
from pynsqd.wire.encoder import sized
from pynsqd.wire.errors import Draining, LimitReached, StorageError
from pynsqd.wire.names import is_valid_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynsqd.core.broker import Broker
    from pynsqd.core.publisher import Publisher
    from pynsqd.options import Options

# What could not be stored is refused with 503 and this; nsqd says EXITING, whatever the cause (DEVIATIONS).
STORAGE_FAILED: Final = "STORAGE_FAILED"
# ... and while the node is drained with nsqd's word.
EXITING: Final = "EXITING"

# Of larger batches not all is split and framed in one turn: 5 MB of single letters took a second.
LARGE_BATCH: Final = 1 << 18  # bytes
_PART: Final = 1 << 16
_MOST_PARTS: Final = 128

REFUSALS: Final = (HttpError, StorageError, LimitReached)

_INT32: Final = Struct(">i")
_NS_PER_MS: Final = 1_000_000
# What Go's ParseInt takes and is not negative; int() alone would take spaces, underscores and digits of all scripts.
_DEFER: Final = re.compile(r"\+?0*([0-9]{1,19})|-0+")
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a publish goes, as its query says; worth keeping, since clients ask the same again and again.

    ``refusal`` is the answer to a bad query. It may still name a topic, which then exists afterwards: nsqd creates
    it before it looks at ``defer``.
    """

    batch: bool  # /mpub
    limit: int  # longest body in bytes
    longest: int  # longest message in bytes
    topic: str = ""
    delay_ns: int = 0
    binary: bool = False
    refusal: Reply | None = None


def read_target(path: str, raw_query: str, options: Options) -> Target:
    """Read the query of a POST to ``path``, which is /pub or /mpub."""
    batch = path == "/mpub"
    limit = options.max_body_size if batch else options.max_msg_size
    topic = ""
    try:
        query = parse_query(raw_query)
        topic = topic_name(query)
        delay_ns = 0 if batch else _delay_ns(query, options.max_req_timeout_ns)
    except HttpError as error:
        return Target(batch, limit, options.max_msg_size, topic, refusal=failure(error.status, error.text))
    binary = batch and boolean(query, "binary", absent=False)
    return Target(batch, limit, options.max_msg_size, topic, delay_ns, binary)


def topic_name(query: dict[str, str]) -> str:
    """Return the parameter ``topic`` of /pub, /mpub and /topic/*.

    Raises:
        HttpError: 400 MISSING_ARG_TOPIC or INVALID_TOPIC.
    """
    name = argument(query, "topic")
    if not is_valid_name(name):
        raise HttpError(400, "INVALID_TOPIC")
    return name


def boolean(query: dict[str, str], name: str, *, absent: bool) -> bool:
    """Return a boolean parameter: true, 1, false, 0, and anything else counts as true (PROTOCOL 2.4, 2.5)."""
    return _BOOLEANS.get(query[name], True) if name in query else absent


def _delay_ns(query: dict[str, str], most_ns: int) -> int:
    text = query.get("defer")
    if text is None:
        return 0
    match = _DEFER.fullmatch(text)
    delay_ns = int(match[1] or 0) * _NS_PER_MS if match else -1
    if not 0 <= delay_ns <= most_ns:
        raise HttpError(400, "INVALID_DEFER")
    return delay_ns


def too_big(target: Target, begin: bytes = b"") -> Reply:
    """Answer a body longer than ``target.limit`` that begins with ``begin``; the connection ends, it is not all read.

    nsqd takes a text batch line by line, so a line that is too long counts before the whole that is too long.
    """
    *lines, _ = begin.split(b"\n")
    if target.batch and (target.binary or max(map(len, lines), default=0) <= target.longest):
        return failure(413, "BODY_TOO_BIG", close=True)
    return failure(413, "MSG_TOO_BIG", close=True)


def ping(broker: Broker) -> Reply:
    """Answer GET /ping."""
    return plain(broker.health, 200 if broker.health == "OK" else 500)


def publish(broker: Broker, target: Target, body: bytes, publisher: Publisher, ok: bytes) -> Reply | None:
    """Publish ``body``, at most ``target.limit`` bytes, and append the success reply ``ok`` to the publisher's replies.

    Returns the answer instead when the request is refused.
    """
    if not body and not target.batch:
        return failure(400, "MSG_EMPTY")
    try:
        topic = broker.topics.get(target.topic) or (broker.topic(target.topic) if target.topic else None)
        if topic is None or target.refusal is not None:
            return target.refusal
        if target.batch:
            parts = [part for part in split(body, target.binary, broker.options) if part[1]]
            publisher.replies.append(ok)
            batch = GatheredBatch([piece for piece, _ in parts], [count for _, count in parts])
            topic.publishes.publish_batch(batch, publisher, "MPUB")
        elif target.delay_ns:
            publisher.replies.append(ok)
            topic.publishes.publish_deferred(body, target.delay_ns, publisher, "PUB")
        else:
            publisher.replies.append(ok)
            topic.publishes.publish(body, publisher, "PUB")
    except REFUSALS as error:
        return refused(error)
    return None


def refused(error: HttpError | StorageError | LimitReached) -> Reply:
    """Answer a publish that is refused."""
    if isinstance(error, HttpError):
        return failure(error.status, error.text)
    return failure(503, error.code) if isinstance(error, LimitReached) else not_stored(error)


def not_stored(error: StorageError) -> Reply:
    """Refuse a publish for no fault of its own: the storage fails, or the node is drained and others are not."""
    if not isinstance(error, Draining):
        return failure(503, STORAGE_FAILED)
    reply = failure(503, EXITING)
    return replace(reply, headers=(*reply.headers, ("Retry-After", "1")))


def split(body: bytes, binary: bool, options: Options) -> Iterator[tuple[bytes, int]]:
    r"""Split a batch: messages behind their sizes, and how many, so much at a time that nobody else waits long.

    In a text batch ``\n`` ends a message, empty ones are skipped and ``\r`` is kept; there may be none in a part of it.
    A binary one is a count, then that many messages, each behind its size; what follows them is ignored.

    Raises:
        HttpError: 413 BAD_BODY for the count of a binary batch, BAD_MESSAGE for a message of it, MSG_TOO_BIG.
    """
    size = max(_PART, len(body) // _MOST_PARTS)
    if binary:
        at, left = 4, _binary_count(body, options)
        while left:
            count, behind = _walk_binary(body, at, left, at + size, options)
            yield body[at:behind], count
            left -= count
            at = behind
        return
    at = 0
    while at < len(body):
        end = body.rfind(b"\n", at, at + size) + 1 or body.find(b"\n", at + size) + 1 or len(body)
        lines = [line for line in body[at:end].split(b"\n") if line]
        if max(map(len, lines), default=0) > options.max_msg_size:
            raise HttpError(413, "MSG_TOO_BIG")
        yield sized(lines), len(lines)
        at = end


def _binary_count(body: bytes, options: Options) -> int:
    count: int = _INT32.unpack_from(body)[0] if len(body) >= 4 else 0
    if not 0 < count <= (options.max_body_size - 4) // 5:
        raise HttpError(413, "BAD_BODY")
    return count


def _walk_binary(body: bytes, at: int, most: int, stop: int, options: Options) -> tuple[int, int]:
    """Return how many messages begin from ``at`` on before ``stop``, ``most`` at most, and where the next begins."""
    count = 0
    end = len(body)
    while count < most and (at < stop or at >= end):
        start = at + 4
        if start > end:
            raise HttpError(413, "BAD_MESSAGE")
        (size,) = _INT32.unpack_from(body, at)
        at = start + size
        if not 0 < size <= options.max_msg_size or at > end:
            raise HttpError(413, "BAD_MESSAGE")
        count += 1
    return count, at
