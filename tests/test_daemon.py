"""The node as a whole: how it starts and stops."""

from pathlib import Path

import pytest

from pynsqd.wire.errors import StartupError
from tests.support.lookupds import running_lookupd
from tests.support.nodes import OK, V2, Api, eventually, inside
from tests.support.wire import command, http


async def test_its_end_closes_connections_and_frees_the_folder(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        client = await V2.open(node.tcp)
        assert await client.ask(command(b"PUB t", b"x")) == OK
    await client.expect_closed()
    await client.close()
    async with inside(tmp_path) as node:
        assert (await node.api.topic())["depth"] == 1


async def test_a_lookupd_that_is_put_later_is_asked_for_channels(tmp_path: Path) -> None:
    async with running_lookupd() as lookupd, inside(tmp_path, broadcast_address="127.0.0.1") as node:
        await lookupd.post("/channel/create?topic=t&channel=c")
        body = b'["%s"]' % lookupd.address.encode()
        put = "PUT /config/nsqlookupd_tcp_addresses"
        assert (await http(node.api.address, put, body, headers={"Content-Length": str(len(body))})).status == 200
        assert (await node.api.post("/pub?topic=t", b"x")).status == 200
        await eventually(lambda: _has_channel(node.api))


async def _has_channel(api: Api) -> bool:
    return [one["channel_name"] for one in (await api.topic())["channels"]] == ["c"]


async def test_a_refused_start_frees_the_folder(tmp_path: Path) -> None:
    (tmp_path / "pynsqd.meta").write_bytes(b"?")
    for _ in range(2):
        with pytest.raises((StartupError, ExceptionGroup), match="metadata"):
            async with inside(tmp_path):
                pass
    (tmp_path / "pynsqd.meta").unlink()
    async with inside(tmp_path) as node:
        assert await node.api.ping() == (200, b"OK")
