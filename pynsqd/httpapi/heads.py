"""Heads of requests that the ingest answers in place, and how its answers look. A head is parsed once, see ingest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httptools

from pynsqd.httpapi.publish import LARGE_BATCH, Target, read_target
from pynsqd.runtime.http import Reply, key_of

if TYPE_CHECKING:
    from pynsqd.options import Options
    from pynsqd.runtime.api_keys import ApiKeys

HEAD_END: Final = b"\r\n\r\n"

# How an answer says its version and what becomes of the connection, as Go does it: HTTP/1.1 kept and closed,
# HTTP/1.0 kept and closed.
STYLES: Final = (
    ("HTTP/1.1", ""),
    ("HTTP/1.1", "Connection: close\r\n"),
    ("HTTP/1.0", "Connection: keep-alive\r\n"),
    ("HTTP/1.0", ""),
)
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    413: "Request Entity Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def encode_reply(reply: Reply, style: int, date: str) -> bytes:
    """Put ``reply`` on the wire in one of the styles of HTTP/1.0 and 1.1."""
    version, connection = STYLES[style]
    headers = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
    head = (
        f"{version} {reply.status} {_REASONS[reply.status]}\r\n{connection}{headers}"
        f"Date: {date}\r\nContent-Length: {len(reply.body)}\r\n\r\n"
    )
    return head.encode() + reply.body


def style_of(answer: bytes) -> int:
    """Return the style that ``answer`` was encoded in."""
    second_line = answer.split(b"\r\n", 2)[1]
    closing = second_line == b"Connection: close"
    if answer.startswith(b"HTTP/1.1"):
        return 1 if closing else 0
    return 2 if second_line == b"Connection: keep-alive" else 3


class Head:
    """What the head of a request asks for; ``target`` is None for /ping, ``topic`` empty for all but a plain /pub."""

    __slots__ = ("body_length", "close", "style", "target", "topic")

    def __init__(self, target: Target | None, body_length: int, style: int) -> None:
        self.target = target
        self.body_length = body_length
        self.style = style
        self.close = style % 2 == 1
        plain = target is not None and body_length and not (target.batch or target.delay_ns or target.refusal)
        self.topic = target.topic if target is not None and plain else ""


class _HeadReader:
    """Takes the callbacks of httptools for one head."""

    def __init__(self) -> None:
        self.url = b""
        self.content_length = 0
        self.begun = 0
        self.hosts = 0
        self.connection: set[bytes] = set()
        self.plain = True  # nothing that only the general path handles

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self.content_length = int(value)
        elif name == b"host":
            self.hosts += 1
        elif name == b"connection":
            self.connection.update(token.strip() for token in value.lower().split(b","))
        elif name in (b"transfer-encoding", b"expect"):
            self.plain = False

    def on_body(self, _: bytes) -> None:
        self.plain = False  # httptools saw the head end earlier than its first empty line with carriage returns


class _KeyedHeadReader(_HeadReader):
    """Looks for a key too."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[bytes, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered in (b"x-api-key", b"authorization"):
            self.plain = self.plain and lowered not in self.keys
            self.keys[lowered] = value.decode("utf-8", "surrogateescape")
        super().on_header(name, value)

    def allowed(self, path: str, keys: ApiKeys) -> bool:
        """Tell whether it may POST to ``path``."""
        key = key_of(self.keys.get(b"x-api-key"), self.keys.get(b"authorization"))
        return keys.refusal("POST", path, key) is None


def read_head(raw: bytes, options: Options, keys: ApiKeys | None = None) -> Head | None:
    """Parse the head of one request, without its empty line; None if the request is the general path's.

    So is one that ``keys`` do not allow.
    """
    reader = _HeadReader() if keys is None else _KeyedHeadReader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(raw + HEAD_END)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade, ValueError):
        return None
    version = parser.get_http_version()
    if not reader.plain or reader.begun != 1 or version not in ("1.0", "1.1"):
        return None
    if version == "1.1":
        if reader.hosts != 1:
            return None
        style = 1 if b"close" in reader.connection else 0
    else:
        style = 2 if b"keep-alive" in reader.connection and b"close" not in reader.connection else 3
    path, _, query = reader.url.decode("utf-8", "surrogateescape").partition("?")
    method = parser.get_method()
    if method == b"GET" and path == "/ping" and not reader.content_length:
        return Head(None, 0, style)
    if method != b"POST" or path not in ("/pub", "/mpub"):
        return None
    if keys is not None and isinstance(reader, _KeyedHeadReader) and not reader.allowed(path, keys):
        return None
    target = read_target(path, query, options)
    longest = min(target.limit, LARGE_BATCH) if target.batch else target.limit
    return Head(target, reader.content_length, style) if reader.content_length <= longest else None
