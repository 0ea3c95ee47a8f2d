"""A node with an auth server that does not answer: who waits, what that costs, and who does not notice."""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import anyio
import pytest

from pynsqd.runtime.kinds import LogLevel
from tests.support.nodes import OK, V2, Inside, inside
from tests.support.wire import ERROR, Frame, command
from tests.test_auth import Server, http

SECRET = b"very secret"
ALL = json.dumps(
    {"ttl": 1, "identity": "me", "authorizations": [{"topic": "", "channels": [""], "permissions": ["publish"]}]}
).encode()


class Slow:
    """Answers once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()

    async def __call__(self, _: StreamReader, writer: StreamWriter) -> None:
        await self.may.wait()
        writer.write(http(ALL))


async def waiting(node: Inside, server: Server, asked: int) -> V2:
    """Connect a client whose AUTH is not answered."""
    client = await V2.open(node.tcp)
    await client.send(command(b"AUTH", SECRET))
    with anyio.fail_after(30):
        while len(server.asked) < asked:
            await anyio.sleep(0.01)
    return client


async def test_only_those_wait_who_asked(tmp_path: Path) -> None:
    slow = Slow()
    server = Server(slow)
    async with server.running() as address, inside(tmp_path, auth_http_addresses=(address,)) as node:
        many = [await waiting(node, server, number) for number in range(1, 51)]
        late = many[0]
        # far more than all buffers between the two hold: what the node does not read stays with the client
        flood = command(b"PUB t", b"x" * 1000) * 50_000
        sending = asyncio.ensure_future(late.send(flood))
        server.answer = http(ALL)
        async with await V2.open(node.tcp) as other:
            assert (await other.ask(command(b"AUTH", SECRET))).payload.startswith(b'{"identity":"me"')
            for _ in range(100):
                assert await other.ask(command(b"PUB other", b"y")) == OK
        assert not sending.done()
        assert "t" not in [topic["topic_name"] for topic in (await node.api.stats())["topics"]]
        slow.may.set()
        assert (await late.frame()).payload.startswith(b'{"identity":"me"')
        for _ in range(50_000):
            assert await late.frame() == OK
        await sending
        for client in many:
            await client.close()


async def test_silence_of_the_server_costs_its_client_the_connection(tmp_path: Path) -> None:
    server = Server(Slow())
    options = {"auth_http_addresses": ("127.0.0.1:1",), "http_client_request_timeout_ns": 300_000_000}
    async with server.running() as address:
        options["auth_http_addresses"] = (address,)
        async with inside(tmp_path, **options) as node:
            client = await waiting(node, server, 1)
            await client.send(command(b"PUB t", b"x"))
            assert await client.frame() == Frame(ERROR, b"E_AUTH_FAILED AUTH failed")
            await client.expect_closed()
            assert (await node.api.stats())["topics"] == []


async def test_many_that_leave_while_they_wait_leave_nothing(tmp_path: Path) -> None:
    server = Server(Slow())
    async with server.running() as address, inside(tmp_path, auth_http_addresses=(address,)) as node:
        for number in range(1, 21):
            await (await waiting(node, server, number)).close()
        async with await V2.open(node.tcp) as other:
            assert await other.ask(command(b"PUB t", b"x")) == Frame(ERROR, b"E_AUTH_FIRST AUTH required before PUB")
    # the end of the node, above, does not wait for the auth server either


@pytest.mark.parametrize("answer", [http(ALL), http(b"no", "500 X"), http(b"{}", "403 X"), b"\0"])
async def test_no_line_of_the_log_has_the_secret(answer: bytes, tmp_path: Path) -> None:
    server = Server(answer)
    async with server.running() as address, inside(tmp_path, auth_http_addresses=(address,)) as node:
        node.logs.level = LogLevel.DEBUG
        async with await V2.open(node.tcp) as client:
            await client.ask(command(b"AUTH", SECRET))
            await client.send(command(b"AUTH", SECRET))
        assert "secret" not in repr(node.logs.lines)
    assert server.asked
