"""--max-connections on real sockets."""

import json
from pathlib import Path

import anyio
import pytest

from pynsqd.net.door import Door
from tests.support.nodes import OK, V2, eventually, inside
from tests.support.wire import ERROR, Frame, command, http

REFUSED = Frame(ERROR, b"E_TOO_MANY_CONNECTIONS connections exceed limit of 2")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    if request.param:
        pytest.importorskip("uvloop")
    return ("asyncio", {"use_uvloop": request.param})


async def test_tcp(tmp_path: Path) -> None:
    """Those who are in stay in; who comes too late is told; who leaves makes room. Crowds too."""
    async with inside(tmp_path, max_connections=2) as node:
        async with await V2.open(node.tcp) as first, await V2.open(node.tcp) as second:
            assert await first.ask(command(b"PUB t", b"x")) == OK
            refused = 0

            async def one_more() -> None:
                nonlocal refused
                async with await V2.open(node.tcp, magic=b"") as client:
                    assert await client.frame() == REFUSED
                    await client.expect_closed()
                    refused += 1

            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(one_more)
            assert refused == 50
            assert await second.ask(command(b"PUB t", b"x")) == OK
            assert (await node.api.ping())[0] == 200
        await eventually(lambda: _lets_in(node.tcp))
        assert sum("too many connections" in str(line) for line in node.logs.lines) == 1


async def _lets_in(address: tuple[str, int]) -> bool:
    async with await V2.open(address) as client:
        return await client.ask(command(b"PUB t", b"x")) == OK


async def test_http(tmp_path: Path) -> None:
    """Counted apart from TCP, whoever answers."""
    async with inside(tmp_path, max_connections=2) as node:
        stats = "GET /stats?format=json"
        async with (
            await V2.open(node.tcp),
            await V2.open(node.tcp),
            await V2.open(node.api.address, magic=b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"),
            await V2.open(node.api.address, magic=f"{stats} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as general,
        ):
            await eventually(lambda: _says(node.api.address, 503))
            answer = await http(node.api.address, "GET /ping")
            assert (answer.status, json.loads(answer.body)) == (503, {"message": "TOO_MANY_CONNECTIONS"})
            assert answer.headers["connection"] == "close"
            await general.send(b"")
        await eventually(lambda: _says(node.api.address, 200))


async def _says(address: tuple[str, int], status: int) -> bool:
    return (await http(address, "GET /ping")).status == status


def test_no_limit_refuses_nobody() -> None:
    assert not Door("TCP", 0, b"", print).refuses(None, 10**9)  # type: ignore[arg-type]
