"""runtime/http_connection: half-closed clients, and what is no HTTP, on a real socket."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from pynsqd.runtime import http_connection
from pynsqd.runtime.http import HttpRequest, Reply, Router, http_server, v1
from tests.httpapi.client import HttpClient, request
from tests.httpapi.running import Logs, let_read, until


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    if request.param:
        pytest.importorskip("uvloop")
    return ("asyncio", {"use_uvloop": request.param})


class Served:
    """A server with a slow path and one that gives the body back."""

    def __init__(self) -> None:
        self.port = 0
        self.go_on = anyio.Event()
        self.begun = 0
        self.logs = Logs()
        router = Router()
        router.add("GET", "/slow", self.slow)
        router.add("POST", "/echo", self.echo)
        self.server = http_server(router, self.logs.logger)

    async def slow(self, _: HttpRequest) -> Reply:
        self.begun += 1
        await self.go_on.wait()
        return v1(f"answer {self.begun}")

    async def echo(self, given: HttpRequest) -> Reply:
        return v1((await given.body(1000) or b"").decode())


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    served = Served()
    listening = await asyncio.get_running_loop().create_server(served.server, "127.0.0.1", 0)
    served.port = listening.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        listening.close()
        served.server.close()
        await until(lambda: not served.server.connections)


async def test_a_half_closed_client_gets_all_its_answers() -> None:
    async with serving() as served, await HttpClient.open(served.port) as client:
        await client.send(request("GET /slow") * 3)
        await client.shutdown_write()
        await until(lambda: served.begun)
        await let_read()
        served.go_on.set()
        assert [answer.body for answer in await client.answers()] == [b"answer 1", b"answer 2", b"answer 3"]


@pytest.mark.parametrize("sent", [b"", b"GET /sl"])
async def test_a_half_closed_client_that_is_owed_nothing_is_closed(sent: bytes) -> None:
    async with serving() as served, await HttpClient.open(served.port) as client:
        served.go_on.set()
        assert (await client.ask("GET /slow")).status == 200
        await client.send(sent)
        await client.shutdown_write()
        await client.closed()


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
async def test_a_body_that_breaks_off(framing: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served, await HttpClient.open(served.port) as client:
        await client.send(request("POST /echo", b"whole") + request("POST /echo", None, framing) + b"3\r\nab")
        await client.shutdown_write()
        answers = await client.answers()
        assert [(answer.status, answer.body) for answer in answers] == [
            (200, b"whole"),
            (500, b'{"message":"INTERNAL_ERROR"}'),
        ]
        assert not served.logs.lines
        assert not caplog.records


async def test_what_is_no_http_is_refused_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served, await HttpClient.open(served.port) as client:
        await client.send(b"\x16\x03\x01\x02\r\n\r\n")
        (answer,) = await client.answers()
        assert (answer.status, answer.body) == (400, b"400 Bad Request")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert not served.logs.lines
        assert not caplog.records


async def test_close_ends_idle_and_busy_connections() -> None:
    async with (
        serving() as served,
        await HttpClient.open(served.port) as idle,
        await HttpClient.open(served.port) as busy,
    ):
        await busy.send(request("GET /slow"))
        await until(lambda: served.begun)
        served.server.close()
        await idle.closed()
        await busy.closed()
        served.go_on.set()


@pytest.mark.parametrize("begun", [b"", b"GET /slow HTTP/1.1\r\nHost: x\r\nX: "])
async def test_a_head_that_comes_too_slowly_ends_the_connection(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a byte of it comes; also the head of a later request."""
    monkeypatch.setattr(http_connection, "_HEAD_S", 0.3)
    async with serving() as served, await HttpClient.open(served.port) as client:
        if begun:
            served.go_on.set()
            assert (await client.ask("GET /slow")).status == 200
            await client.send(begun)
        with anyio.fail_after(30):
            while served.server.connections:
                if begun:
                    await client.send(b"x")
                await anyio.sleep(0.05)


async def test_answers_and_pauses_between_requests_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_HEAD_S", 1.0)
    async with serving() as served, await HttpClient.open(served.port) as client:
        await client.send(request("GET /slow"))
        await anyio.sleep(1.2)
        served.go_on.set()
        assert (await client.answer()).status == 200
        await anyio.sleep(1.2)
        assert (await client.ask("GET /slow")).status == 200


async def test_a_head_that_is_too_large_ends_the_connection() -> None:
    """However few lines it has; aiohttp would take a megabyte."""
    line = b"X: " + b"y" * 8000 + b"\r\n"
    async with serving() as served, await HttpClient.open(served.port) as client:
        served.go_on.set()
        await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n" + 7 * line + b"\r\n")
        assert (await client.answer()).status == 200
        with suppress(anyio.BrokenResourceError):
            await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n" + 9 * line)
        await until(lambda: not served.server.connections)


class Gone(asyncio.Transport):
    """A connection that the client has reset."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None: ...

    def write(self, data: object) -> None: ...


@pytest.mark.parametrize("sent", [b"", request("POST /echo", b"x" * 100)[:-50], request("GET /slow")])
async def test_a_client_that_leaves_in_the_turn_in_which_it_comes(sent: bytes) -> None:
    """No news for the log: anybody can do so, as often as he likes."""
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with serving() as served:
        served.go_on.set()
        protocol = served.server()
        protocol.connection_made(Gone())
        protocol.data_received(sent)
        protocol.connection_lost(ConnectionResetError())
        del protocol
        await until(lambda: not served.server.connections)
        await let_read()
        gc.collect()
        assert (failed, served.logs.lines) == ([], [])
