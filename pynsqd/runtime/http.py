"""What the HTTP sides of both daemons share: nsqd's answers, routing and reading of a query (PROTOCOL 2.1).

Everything here is plain data and functions, usable on a fast path without aiohttp. aiohttp, whose import costs a
quarter of a second, is loaded by ``http_server`` only.

    router = Router()
    router.add("POST", "/topic/create", create)      # async def create(request: HttpRequest) -> Reply
    router.add("GET", "/config/:opt", read_option)   # what stood at ``:opt`` is request.parameter
    server = http_server(router, log)                # a protocol factory: loop.create_server(server, ...)

A handler returns ``v1(result)`` or ``plain(text)``, or raises ``HttpError``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, unquote_plus

from pynsqd.wire.errors import NsqError
from pynsqd.wire.go_json import encode_json
from pynsqd.wire.names import is_valid_name

if TYPE_CHECKING:
    from aiohttp import web
    from structlog.typing import FilteringBoundLogger

    from pynsqd.runtime.api_keys import ApiKeys
    from pynsqd.runtime.http_connection import HttpServer

_NSQ_HEADER: Final = ("X-Nsq-Content-Type", "nsq; version=1.0")
_TEXT_HEADER: Final = ("Content-Type", "text/plain; charset=utf-8")
_JSON_HEADERS: Final = (("Content-Type", "application/json; charset=utf-8"), _NSQ_HEADER)
_STALLED_BODY_S: Final = 60.0
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9a-fA-F]{2})")
_URL_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F))
# How Go escapes a link in a page; importing html for it would cost two milliseconds.
_HTML_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})


class HttpError(NsqError):
    """The request is refused with ``status`` and ``{"message": text}``."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text


# ---- answers


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``close`` ends the connection after it, for a request whose body was left unread."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


def json_number(value: float) -> int | float:
    """Return ``value`` so that it prints as Go prints a float: 1 and not 1.0."""
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def v1(result: object = None, status: int = 200, *, close: bool = False) -> Reply:
    """Answer with a result: none is an empty body, a string is sent as it is, anything else as JSON."""
    if result is None:
        return Reply(status, b"", (_NSQ_HEADER,), close)
    if isinstance(result, str):
        return Reply(status, result.encode("utf-8", "surrogateescape"), (_TEXT_HEADER, _NSQ_HEADER), close)
    return Reply(status, encode_json(result), _JSON_HEADERS, close)


def plain(text: str, status: int = 200) -> Reply:
    """Answer with text and without the NSQ header, as /ping does."""
    return Reply(status, text.encode("utf-8", "surrogateescape"), (_TEXT_HEADER,))


def failure(status: int, text: str, *, close: bool = False) -> Reply:
    """Answer with ``{"message": text}``."""
    return v1({"message": text}, status, close=close)


# ---- the query


def split_target(target: str) -> tuple[str, str]:
    """Split a request target into the unescaped path and the raw query. A ``#`` belongs to either, as in Go."""
    if not target.startswith("/") and "://" in target:
        _, _, rest = target.partition("://")
        slash = rest.find("/")
        target = rest[slash:] if slash >= 0 else "/"
    path, _, query = target.partition("?")
    return unquote(path, errors="surrogateescape"), query


def parse_query(query: str) -> dict[str, str]:
    """Return the parameters of a raw query; of a repeated key the first value.

    Raises:
        HttpError: 400 INVALID_REQUEST, for a bad ``%xx`` or a ``;`` anywhere in it (PROTOCOL 2.1).
    """
    if ";" in query or ("%" in query and _BAD_ESCAPE.search(query)):
        raise HttpError(400, "INVALID_REQUEST")
    found: dict[str, str] = {}
    for part in query.split("&"):
        if part:
            key, _, value = part.partition("=")
            found.setdefault(unquote_plus(key, errors="surrogateescape"), unquote_plus(value, errors="surrogateescape"))
    return found


def argument(query: dict[str, str], name: str) -> str:
    """Return the parameter ``name``, which may be empty.

    Raises:
        HttpError: 400 MISSING_ARG_<NAME> when it is not there.
    """
    try:
        return query[name]
    except KeyError:
        raise HttpError(400, f"MISSING_ARG_{name.upper()}") from None


def valid_name(query: dict[str, str], name: str) -> str:
    """Return the topic or channel name in the parameter ``name``.

    Raises:
        HttpError: 400 MISSING_ARG_<NAME> or INVALID_ARG_<NAME>.
    """
    value = argument(query, name)
    if not is_valid_name(value):
        raise HttpError(400, f"INVALID_ARG_{name.upper()}")
    return value


# ---- keys


def key_of(x_api_key: str | None, authorization: str | None) -> str | None:
    """Return the key that the two headers hold: X-API-Key counts first, then ``Authorization: Bearer``."""
    if x_api_key is not None:
        return x_api_key.strip()
    if authorization is not None and authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return None


def _refusal(request: HttpRequest, keys: ApiKeys) -> Reply | None:
    """Refuse what the request's key does not allow; a body is left unread then, and the connection ends."""
    headers = request.web.headers
    key = key_of(headers.get("X-API-Key"), headers.get("Authorization"))
    refusal = keys.refusal(request.method, request.path, key, request.raw_query)
    return refusal and replace(refusal, close=request.web.body_exists)


# ---- requests and routes


@dataclass(slots=True)
class HttpRequest:
    """One request as a handler sees it; ``parameter`` is what stood at the ``:name`` of its route."""

    method: str
    path: str
    raw_query: str
    web: web.BaseRequest
    parameter: str = ""

    def query(self) -> dict[str, str]:
        """Return ``parse_query`` of the query; form bodies are not looked at."""
        return parse_query(self.raw_query)

    async def body(self, limit: int) -> bytes | None:
        """Read the body, or return None once it is known to be longer than ``limit`` bytes; then answer with ``close``.

        A client that waits for ``100 Continue`` gets it here, so a handler that refuses first spares it the upload.

        Raises:
            HttpError: 500 INTERNAL_ERROR when the body breaks off, or stands still for a minute.
        """
        if (self.web.content_length or 0) > limit:
            return None
        body = await self.read(limit + 1)
        return body if len(body) <= limit else None

    async def read(self, most: int) -> bytes:
        """Read the body, or at least its first ``most`` bytes if it is longer. Raises HttpError as ``body`` does."""
        from aiohttp import web  # noqa: PLC0415  loaded already by http_server; importing this module must be quick

        chunks: list[bytes] = []
        size = 0
        try:
            if self.web.headers.get("Expect", "").lower() == "100-continue":
                await self.web.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.web.writer.output_size = 0
            while size < most:
                async with asyncio.timeout(_STALLED_BODY_S):
                    chunk = await self.web.content.readany()
                if not chunk:
                    break
                chunks.append(chunk)
                size += len(chunk)
        except (web.RequestPayloadError, ConnectionError, TimeoutError) as error:
            raise HttpError(500, "INTERNAL_ERROR") from error
        except RuntimeError as error:
            if self.web.transport is not None:
                raise
            raise HttpError(500, "INTERNAL_ERROR") from error  # aiohttp's word for a client that had left before
        return b"".join(chunks)


Handler = Callable[[HttpRequest], Awaitable[Reply]]


class Router:
    """Finds the handler of a request, and answers what has none as nsqd's router does (PROTOCOL 2.1)."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._open: dict[str, dict[str, Handler]] = {}  # routes that end in a parameter, by what stands before it

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Route ``method`` and ``path`` to ``handler``; the last segment may be a parameter, written ``:name``."""
        head, _, last = path.rpartition("/")
        if last.startswith(":"):
            self._open.setdefault(method, {})[head] = handler
        else:
            self._exact.setdefault(method, {})[path] = handler

    async def dispatch(self, request: HttpRequest) -> Reply:
        """Answer ``request``. Any error but HttpError is the caller's."""
        found = self._find(request.method, request.path)
        if found is None:
            return self._unrouted(request)
        handler, request.parameter = found
        try:
            return await handler(request)
        except HttpError as error:
            return failure(error.status, error.text)

    def _find(self, method: str, path: str) -> tuple[Handler, str] | None:
        if handler := self._exact.get(method, {}).get(path):
            return handler, ""
        head, _, last = path.rpartition("/")
        if last and (handler := self._open.get(method, {}).get(head)):
            return handler, last
        return None

    def _unrouted(self, request: HttpRequest) -> Reply:
        method, path = request.method, request.path
        if method == "OPTIONS" and path == "*":
            return Reply()
        if (better := self._better_path(method, path)) is not None:
            return _redirect(method, better, request.raw_query)
        methods = {method for method in {*self._exact, *self._open} if self._find(method, path)}
        if not methods:
            return failure(404, "NOT_FOUND")
        allow = ("Allow", ", ".join(sorted(methods | {"OPTIONS"})))
        if method == "OPTIONS":
            return Reply(headers=(allow,))
        refusal = failure(405, "METHOD_NOT_ALLOWED")
        return Reply(405, refusal.body, (allow, *refusal.headers))

    def _better_path(self, method: str, path: str) -> str | None:
        """Find a route of ``method`` that ``path`` misses by a slash, by case or by what a clean path has not."""
        clean = _clean_path(path)
        for known in self._exact.get(method, {}):
            if known.rstrip("/").lower() == clean.lower():
                return known
        head, _, last = clean.rpartition("/")
        for known in self._open.get(method, {}):
            if last and known.lower() == head.lower():
                return f"{known}/{last}"
        return None


def _clean_path(path: str) -> str:
    """Resolve ``.``, ``..`` and empty segments; without a slash at the end."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept)


def _redirect(method: str, path: str, raw_query: str) -> Reply:
    location = quote(path, errors="surrogateescape")
    if raw_query:
        location += "?" + quote(raw_query, safe=_URL_SAFE, errors="surrogateescape")
    if method != "GET":
        return Reply(307, b"", (("Location", location),))
    page = f'<a href="{location.translate(_HTML_ESCAPES)}">Moved Permanently</a>.\n\n'
    return Reply(301, page.encode(), (("Content-Type", "text/html; charset=utf-8"), ("Location", location)))


def http_server(router: Router, log: FilteringBoundLogger, keys: ApiKeys | None = None) -> HttpServer:
    """Return a factory of protocols that answer by ``router``, if ``keys`` allow it. Imports aiohttp.

    To be called in the running loop.
    """
    # a quarter of a second, and only who serves needs it
    from pynsqd.runtime.http_connection import HttpResponse, HttpServer  # noqa: PLC0415

    async def answer(message: web.BaseRequest) -> web.StreamResponse:
        path, raw_query = split_target(message.raw_path)
        request = HttpRequest(message.method, path, raw_query, message)
        try:
            reply = _refusal(request, keys) if keys is not None else None
            if reply is None:
                reply = await router.dispatch(request)
        except Exception:
            log.exception("http request failed", method=message.method, path=path)
            reply = failure(500, "INTERNAL_ERROR")
        response = HttpResponse(status=reply.status, body=reply.body, headers=dict(reply.headers))
        if reply.close:
            response.force_close()
        return response

    # Bodies are stored as they come, so nothing is decompressed; whoever leaves a body unread gets a second.
    return HttpServer(answer, access_log=None, auto_decompress=False, lingering_time=1.0)
