"""auth: what auth servers are sent, which answers count, and what the hostile ones cost. Against real sockets."""

import asyncio
import gzip
import json
import ssl
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import LogCapture

from pynsqd.auth import AuthServers
from pynsqd.core.authority import Question
from pynsqd.options import Options, checked
from pynsqd.wire.authorization import Grant, parse_grant
from pynsqd.wire.errors import StartupError
from tests.support.lookupds import capture_log
from tests.support.replay import make_certificate

SECOND = 1_000_000_000
SECRET = b"s&cret \xff*~"
QUESTION = Question("10.0.0.1", False, "", SECRET)
GOOD = json.dumps(
    {"ttl": 60, "identity": "me", "authorizations": [{"topic": "t", "channels": ["c"], "permissions": ["subscribe"]}]}
).encode()
Play = Callable[[StreamReader, StreamWriter], Awaitable[None]]


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Server:
    """An auth server that says what it is told to, whatever it is asked."""

    def __init__(self, answer: bytes | Play) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self._playing: set[asyncio.Task[None]] = set()

    async def converse(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
            self.asked.append((line, headers, await reader.readexactly(int(headers.get("content-length", 0)))))
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
            else:
                await self.answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._playing.discard(task)
            writer.close()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.converse, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"127.0.0.1:{self.port}"
        finally:
            server.close()
            for task in tuple(self._playing):
                task.cancel()


@asynccontextmanager
async def asking(*addresses: str, **options: Any) -> AsyncIterator[tuple[AuthServers, LogCapture]]:
    log, captured = capture_log()
    given = Options(auth_http_addresses=addresses, **{"http_client_request_timeout_ns": SECOND} | options)
    servers = AuthServers(given, log)
    async with anyio.create_task_group() as tasks:
        await tasks.start(servers.run)
        yield servers, captured
        tasks.cancel_scope.cancel()


async def ask(servers: AuthServers, question: Question = QUESTION) -> Grant | None:
    answered: asyncio.Future[Grant | None] = asyncio.get_running_loop().create_future()
    servers.ask(question, lambda grant, _now_ns: answered.set_result(grant))
    async with asyncio.timeout(10):
        return await answered


async def test_what_is_sent() -> None:
    server = Server(http(GOOD))
    async with server.running() as address, asking(address) as (servers, _):
        found = await ask(servers)
        assert found is not None
        assert found.identity == "me"
        await ask(servers, Question("::1", True, "a name", b"x"))
    (line, headers, body), (second, _, _) = server.asked
    assert line == "GET /auth?common_name=&remote_ip=10.0.0.1&secret=s%26cret+%FF%2A~&tls=false HTTP/1.1"
    assert second == "GET /auth?common_name=a+name&remote_ip=%3A%3A1&secret=x&tls=true HTTP/1.1"
    assert headers["accept"] == "application/vnd.nsq; version=1.0"
    assert headers["host"] == address
    assert body == b""


async def test_post() -> None:
    server = Server(http(GOOD))
    async with server.running() as address, asking(address, auth_http_request_method="post") as (servers, _):
        assert await ask(servers) is not None
    ((line, headers, body),) = server.asked
    assert line == "POST /auth HTTP/1.1"
    assert headers["content-type"] == "application/json"
    expected = '{"common_name":[""],"remote_ip":["10.0.0.1"],"secret":["s\\u0026cret \ufffd*~"],"tls":["false"]}'
    assert body == expected.encode()


@pytest.mark.parametrize(
    ("form", "target"),
    [
        ("{}", "/auth?"),
        ("{}/p", "/p/auth?"),
        ("http://{}", "/?"),
        ("http://{}/", "/?"),
        ("http://{}/p/q", "/p/q?"),
        ("http://{}/p?x=1", "/p?x=1?"),
    ],
)
async def test_addresses_and_urls(form: str, target: str) -> None:
    server = Server(http(GOOD))
    async with server.running() as address, asking(form.format(address)) as (servers, _):
        assert await ask(servers) is not None
    assert server.asked[0][0].startswith(f"GET {target}common_name=&remote_ip=")


@pytest.mark.parametrize("address", ["ftp://host/auth", "unix:///socket", "", "http://"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="--auth-http-address"):
        checked(Options(auth_http_addresses=(address,)))


async def test_the_first_valid_answer_counts_and_the_start_is_random() -> None:
    bad, good = Server(http(b"", "500 No")), Server(http(GOOD))
    async with bad.running() as first, good.running() as second, asking(first, second, "127.0.0.1:1") as (servers, log):
        for _ in range(30):
            assert await ask(servers) is not None
    assert len(good.asked) == 30
    assert 0 < len(bad.asked) < 30
    warned = [entry["auth_server"] for entry in log.entries if entry["log_level"] == "warning"]
    assert set(warned) <= {first, "127.0.0.1:1"}
    assert len(warned) == len(set(warned))  # once each


async def test_an_answer_without_authorizations_ends_the_search() -> None:
    empty, good = Server(http(b'{"ttl":1}')), Server(http(GOOD))
    async with empty.running() as first, good.running() as second, asking(first, second) as (servers, _):
        answers = [await ask(servers) for _ in range(30)]
    assert {len(one.authorizations) for one in answers if one is not None} == {0, 1}
    assert len(empty.asked) + len(good.asked) == 30


async def test_redirect_is_followed() -> None:
    there = Server(http(GOOD))
    async with there.running() as address:
        here = Server(http(b"", "302 Found", f"Location: http://{address}/other"))
        async with here.running() as first, asking(first) as (servers, _):
            assert await ask(servers) is not None
    assert there.asked[0][0] == "GET /other HTTP/1.1"


@pytest.mark.parametrize("trusted", [True, False])
async def test_https(trusted: bool, tmp_path: Path) -> None:
    """Directly, and where a 403 names its port; only with an authority that is trusted."""
    make_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "srv.pem", tmp_path / "srv.key")
    secure = Server(http(GOOD))
    options = {"tls_root_ca_file": str(tmp_path / "srv.pem")} if trusted else {}
    async with secure.running(tls):
        plain = Server(http(b'{"https_port":%d}' % secure.port, "403 Forbidden"))
        async with plain.running():
            for first in (f"https://localhost:{secure.port}/auth", f"localhost:{plain.port}"):
                async with asking(first, **options) as (servers, log):
                    assert (await ask(servers) is not None) is trusted
                    assert b"s&cret" not in repr(log.entries).encode()
    assert len(secure.asked) == (2 if trusted else 0)


def test_bad_root_ca_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in ("ca.pem", "missing.pem"):
        with pytest.raises(StartupError, match="--tls-root-ca-file"):
            AuthServers(Options(auth_http_addresses=("a",), tls_root_ca_file=str(tmp_path / path)), capture_log()[0])


# ---- hostile ones: each fails in bounded time, is told from the log, and none of it shows the secret


async def hang(_: StreamReader, writer: StreamWriter) -> None:
    await asyncio.sleep(30)


async def endless(_: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def trickle(_: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await asyncio.sleep(0.1)


async def endless_head(_: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"x" * 4000 + b"\r\n")
        await writer.drain()


async def loop(_: StreamReader, writer: StreamWriter) -> None:
    writer.write(http(b"", "302 Found", "Location: /again"))


BOMB = gzip.compress(b" " * 50_000_000)
HOSTILE: dict[str, bytes | Play] = {
    "hangs": hang,
    "endless body": endless,
    "trickles": trickle,
    "endless head": endless_head,
    "redirects for ever": loop,
    "redirects to a file": http(b"", "302 Found", "Location: file:///etc/passwd"),
    "redirects to nowhere": http(b"", "302 Found", "Location: http://[/"),
    "negative size": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + GOOD,
    "huge size": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n" + GOOD,
    "shorter than it says": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + GOOD,
    "garbage": b"\0\xff" * 500,
    "nothing": b"",
    "created": http(GOOD, "201 Created"),
    "not json": http(b"<html>"),
    "deep json": http(b"[" * 500_000),
    "huge number": http(b'{"ttl":' + b"9" * 500_000 + b"}"),
    "huge json": http(b'{"ttl":1,"authorizations":[' + b"{}," * 400_000 + b"{}]}"),
    "a bomb": http(BOMB, "200 OK", "Content-Encoding: gzip"),
    "bad https port": http(b'{"https_port":-1}', "403 Forbidden"),
    "https port of nobody": http(b'{"https_port":1}', "403 Forbidden"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_server(kind: str) -> None:
    server = Server(HOSTILE[kind])
    async with server.running() as address, asking(address) as (servers, log):
        assert await ask(servers) is None
        assert [entry["event"] for entry in log.entries] == ["auth server gave no valid answer"]
        assert not any(part in repr(log.entries) for part in ("s&cret", "s%26cret", "secret="))
        server.answer = http(GOOD)
        assert await ask(servers) is not None
        assert log.entries[-1]["event"] == "auth server answers again"


async def test_the_loop_goes_on_while_an_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    def read_slowly(body: bytes) -> Grant:
        went_on = threading.Event()
        loop.call_soon_threadsafe(went_on.set)
        assert went_on.wait(30)
        return parse_grant(body)

    monkeypatch.setattr("pynsqd.auth.parse_grant", read_slowly)
    async with Server(http(GOOD)).running() as address, asking(address) as (servers, _):
        assert await ask(servers) is not None


async def test_one_that_is_given_up_is_not_answered() -> None:
    server = Server(hang)
    async with (
        server.running() as address,
        asking(address, http_client_request_timeout_ns=SECOND) as (servers, _),
    ):
        answers: list[Grant | None] = []
        give_up = servers.ask(QUESTION, lambda grant, _now_ns: answers.append(grant))
        while not server.asked:
            await asyncio.sleep(0.01)
        give_up()
        assert await ask(servers) is None  # takes as long as the other would have
        assert answers == []


async def test_password_of_a_url_is_not_logged() -> None:
    async with asking("http://user:pass@127.0.0.1:1/auth") as (servers, log):
        assert await ask(servers) is None
    assert log.entries[0]["auth_server"] == "http://127.0.0.1:1/auth"


async def test_what_goes_wrong_with_one_client_ends_nobody_else() -> None:
    server = Server(http(GOOD))

    def fail(grant: Grant | None, now_ns: int) -> None:
        raise RuntimeError("a bug")

    async with server.running() as address, asking(address) as (servers, log):
        servers.ask(QUESTION, fail)
        while not any(entry["event"] == "client failed after AUTH" for entry in log.entries):
            await asyncio.sleep(0.01)
        assert await ask(servers) is not None
