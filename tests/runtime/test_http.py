"""runtime/http: answers, routing and queries as nsqd has them (PROTOCOL 2.1), the last part over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from structlog.testing import LogCapture

from pynsqd.runtime.http import (
    HttpError,
    HttpRequest,
    Reply,
    Router,
    argument,
    failure,
    http_server,
    json_number,
    parse_query,
    plain,
    split_target,
    v1,
    valid_name,
)
from pynsqd.wire.go_json import encode_json
from tests.support.lookupds import capture_log
from tests.support.wire import WireClient

NSQ = ("X-Nsq-Content-Type", "nsq; version=1.0")
JSON = ("Content-Type", "application/json; charset=utf-8")
TEXT = ("Content-Type", "text/plain; charset=utf-8")


# ---- answers


@pytest.mark.parametrize(
    ("value", "encoded"), [(1.0, b"1"), (0.99, b"0.99"), (-3.0, b"-3"), (0.0, b"0"), (1e21, b"1e+21")]
)
def test_json_number(value: float, encoded: bytes) -> None:
    assert encode_json(json_number(value)) == encoded


def test_results() -> None:
    assert v1() == Reply(200, b"", (NSQ,))
    assert v1("OK") == Reply(200, b"OK", (TEXT, NSQ))
    assert v1("") == Reply(200, b"", (TEXT, NSQ))
    assert v1([1]) == Reply(200, b"[1]", (JSON, NSQ))
    assert v1(0) == Reply(200, b"0", (JSON, NSQ))
    assert plain("OK") == Reply(200, b"OK", (TEXT,))
    assert plain("NOK", 500).status == 500
    assert failure(413, "MSG_TOO_BIG", close=True) == Reply(413, b'{"message":"MSG_TOO_BIG"}', (JSON, NSQ), True)


# ---- the query


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a%2fb%20c?d=%20", "/a/b c", "d=%20"),
        ("/a?b?c", "/a", "b?c"),
        ("/a#b?c#d", "/a#b", "c#d"),
        ("http://host:1/a?b", "/a", "b"),
        ("http://host", "/", ""),
        ("*", "*", ""),
        ("/%ff", "/\udcff", ""),
    ],
)
def test_split_target(target: str, path: str, query: str) -> None:
    assert split_target(target) == (path, query)


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1&a=2", {"a": "1"}),
        ("a", {"a": ""}),
        ("=1&&a=", {"": "1", "a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("%61=%62+c%2B", {"a": "b c+"}),
        ("A=1", {"A": "1"}),
        ("a=t#ephemeral", {"a": "t#ephemeral"}),
        ("a=%ff", {"a": "\udcff"}),
    ],
)
def test_parse_query(query: str, parameters: dict[str, str]) -> None:
    assert parse_query(query) == parameters


@pytest.mark.parametrize("query", ["%", "a=%zz", "a=%1", "%g0=1", "a=1;b=2", ";", "a=1&b=%"])
def test_malformed_query(query: str) -> None:
    with pytest.raises(HttpError) as raised:
        parse_query(query)
    assert (raised.value.status, raised.value.text) == (400, "INVALID_REQUEST")


def test_arguments() -> None:
    query = {"topic": "t", "channel": "", "node": "*"}
    assert argument(query, "channel") == ""
    assert valid_name(query, "topic") == "t"
    for name, text in (("channel", "INVALID_ARG_CHANNEL"), ("node", "INVALID_ARG_NODE"), ("x", "MISSING_ARG_X")):
        with pytest.raises(HttpError) as raised:
            valid_name(query, name)
        assert (raised.value.status, raised.value.text) == (400, text)


# ---- routes


async def echo(request: HttpRequest) -> Reply:
    return v1([request.method, request.path, request.parameter, request.query()])


async def refuse(request: HttpRequest) -> Reply:
    raise HttpError(503, "EXITING")


async def fail(request: HttpRequest) -> Reply:
    raise ValueError("a bug")


async def put(request: HttpRequest) -> Reply:
    body = await request.body(10)
    return failure(413, "BODY_TOO_BIG", close=True) if body is None else v1(body.decode())


def router() -> Router:
    routes = Router()
    for method, path, handler in (
        ("GET", "/info", echo),
        ("POST", "/topic/create", refuse),
        ("GET", "/config/:opt", echo),
        ("PUT", "/config/:opt", put),
        ("GET", "/debug/pprof/", echo),
        ("GET", "/fail", fail),
    ):
        routes.add(method, path, handler)
    return routes


async def dispatch(method: str, target: str) -> Reply:
    path, query = split_target(target)
    web: Any = None
    return await router().dispatch(HttpRequest(method, path, query, web))


async def test_routes() -> None:
    assert (await dispatch("GET", "/info?a=b")).body == b'["GET","/info","",{"a":"b"}]'
    assert (await dispatch("GET", "/config/log_level")).body == b'["GET","/config/log_level","log_level",{}]'
    assert await dispatch("GET", "/info?;") == failure(400, "INVALID_REQUEST")
    assert await dispatch("POST", "/topic/create") == failure(503, "EXITING")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/nope"),
        ("GET", "/config"),
        ("GET", "/config/"),
        ("GET", "/config/a/b"),
        ("PUT", "/info/"),
        ("OPTIONS", "/nope"),
        ("OPTIONS", "/info/"),
    ],
)
async def test_not_found(method: str, target: str) -> None:
    reply = await dispatch(method, target)
    assert reply == failure(404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/info", "GET, OPTIONS"),
        ("HEAD", "/info", "GET, OPTIONS"),
        ("GET", "/topic/create", "OPTIONS, POST"),
        ("DELETE", "/config/x", "GET, OPTIONS, PUT"),
    ],
)
async def test_method_not_allowed(method: str, target: str, allow: str) -> None:
    reply = await dispatch(method, target)
    assert (reply.status, reply.body) == (405, b'{"message":"METHOD_NOT_ALLOWED"}')
    assert reply.headers == (("Allow", allow), JSON, NSQ)
    assert await dispatch("OPTIONS", target) == Reply(200, b"", (("Allow", allow),))


async def test_options_of_everything() -> None:
    assert await dispatch("OPTIONS", "*") == Reply()


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/info/", "/info"),
        ("/INFO?x=%zz", "/info?x=%zz"),
        ("//info", "/info"),
        ("/a/../info/.", "/info"),
        ("/../info", "/info"),
        ("/Config/Log_Level/", "/config/Log_Level"),
        ("/config/a%0d%0ab/", "/config/a%0D%0Ab"),
        ("/debug/pprof", "/debug/pprof/"),
        ("/info/?a=\xe9", "/info?a=%C3%A9"),
    ],
)
async def test_redirects(target: str, location: str) -> None:
    reply = await dispatch("GET", target)
    page = f'<a href="{location}">Moved Permanently</a>.\n\n'.encode()
    assert reply == Reply(301, page, (("Content-Type", "text/html; charset=utf-8"), ("Location", location)))


async def test_redirect_of_other_methods_keeps_the_method() -> None:
    assert await dispatch("POST", "/topic/create/?topic=t") == Reply(307, b"", (("Location", "/topic/create?topic=t"),))


async def test_redirect_page_is_escaped() -> None:
    reply = await dispatch("GET", "/info/?<a>&\"'")
    assert reply.body == b'<a href="/info?&lt;a&gt;&amp;&#34;&#39;">Moved Permanently</a>.\n\n'


# ---- the server


@pytest.fixture
async def port() -> AsyncIterator[tuple[int, LogCapture]]:
    logger, log = capture_log()
    connections = http_server(router(), logger)
    server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], log
    server.close()
    await connections.shutdown(1)


async def exchange(port: int, request: bytes) -> bytes:
    async with await WireClient.open(("127.0.0.1", port), b"") as client:
        await client.send(request)
        return await client.drain()


def parts(answer: bytes) -> tuple[bytes, set[bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    return line, {header for header in headers if not header.startswith(b"Date: ")}, body


CLOSE = b"Host: x\r\nConnection: close\r\n\r\n"


async def test_headers_on_the_wire(port: tuple[int, LogCapture]) -> None:
    """No Server header, and no Content-Type where there is no content."""
    answer = await exchange(port[0], b"OPTIONS /info HTTP/1.1\r\n" + CLOSE)
    expected = {b"Allow: GET, OPTIONS", b"Content-Length: 0", b"Connection: close"}
    assert parts(answer) == (b"HTTP/1.1 200 OK", expected, b"")


async def test_pipelined_requests_on_one_connection(port: tuple[int, LogCapture]) -> None:
    answer = await exchange(port[0], b"GET /info HTTP/1.1\r\nHost: x\r\n\r\nGET /config/a HTTP/1.1\r\n" + CLOSE)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answer.index(b'["GET","/info"') < answer.index(b'["GET","/config/a"')


async def test_a_bug_is_an_internal_error_and_logged(port: tuple[int, LogCapture]) -> None:
    answer = await exchange(port[0], b"GET /fail HTTP/1.1\r\n" + CLOSE)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b'{"message":"INTERNAL_ERROR"}')
    (entry,) = port[1].entries
    assert (entry["event"], entry["path"], entry["log_level"]) == ("http request failed", "/fail", "error")


async def put_config(port: int, headers: bytes, body: bytes) -> bytes:
    return await exchange(port, b"PUT /config/a HTTP/1.1\r\n" + headers + CLOSE + body)


async def test_body(port: tuple[int, LogCapture]) -> None:
    assert (await put_config(port[0], b"Content-Length: 10\r\n", b"0123456789")).endswith(b"\r\n\r\n0123456789")
    chunked = b"Transfer-Encoding: chunked\r\n"
    assert (await put_config(port[0], chunked, b"3\r\nabc\r\n0\r\n\r\n")).endswith(b"\r\n\r\nabc")
    gzip = b"Content-Encoding: gzip\r\nContent-Length: 3\r\n"
    assert (await put_config(port[0], gzip, b"abc")).endswith(b"\r\n\r\nabc")


async def test_body_over_the_limit_is_not_read(port: tuple[int, LogCapture]) -> None:
    head = b"PUT /config/a HTTP/1.1\r\nHost: x\r\n"
    for rest in (b"Content-Length: 11\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n"):
        async with await WireClient.open(("127.0.0.1", port[0]), b"") as client:
            await client.send(head + rest)
            answer = await client.drain()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close\r\n" in answer
        assert answer.endswith(b'{"message":"BODY_TOO_BIG"}')


async def test_expect_continue(port: tuple[int, LogCapture]) -> None:
    head = b"PUT /config/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
    async with await WireClient.open(("127.0.0.1", port[0]), b"") as client:
        await client.send(head + b"Content-Length: 3\r\n\r\n")
        with anyio.fail_after(30):
            assert await client._stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        answer = await client.drain()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nabc")
    answer = await exchange(port[0], head + b"Content-Length: 11\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_body_that_breaks_off(port: tuple[int, LogCapture]) -> None:
    async with await WireClient.open(("127.0.0.1", port[0]), b"") as client:
        await client.send(b"PUT /config/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
        await client.shutdown_write()
        answer = await client.drain()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b'{"message":"INTERNAL_ERROR"}')
    assert not port[1].entries
