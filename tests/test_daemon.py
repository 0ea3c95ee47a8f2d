"""The node as a whole: how it starts and stops."""

import socket
from pathlib import Path

import pytest

from lookupd.registration_db import Producer, RegistrationDB
from pynsqd.wire.errors import StartupError
from tests.support.lookupds import Lookupd, running_lookupd
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


async def test_a_start_tells_what_it_has_found(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        assert not node.logged("topics loaded")
        await node.api.do("/topic/create?topic=t", *(f"/channel/create?topic=t&channel={one}" for one in "cd"))
        for target in ("t", "t", "u", "t&defer=3600000"):
            assert (await node.api.post(f"/pub?topic={target}", b"x")).status == 200
    async with inside(tmp_path) as node:
        (found,) = [fields for level, fields in node.logs.lines if fields["event"] == "topics loaded"]
        del found["event"]
        assert found == {"topics": 2, "channels": 2, "waiting": 5, "deferred": 2}


async def test_a_lookupd_that_is_put_later_is_asked_for_channels(tmp_path: Path) -> None:
    async with running_lookupd() as lookupd, inside(tmp_path, broadcast_address="127.0.0.1") as node:
        await lookupd.post("/channel/create?topic=t&channel=c")
        body = b'["%s"]' % lookupd.address.encode()
        put = "PUT /config/nsqlookupd_tcp_addresses"
        assert (await http(node.api.address, put, body, headers={"Content-Length": str(len(body))})).status == 200
        assert (await node.api.post("/pub?topic=t", b"x")).status == 200
        await eventually(lambda: _has_channel(node.api))


async def test_at_its_end_lookupd_hears_before_the_doors_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it sends nobody to a port where nobody listens."""
    open_then: list[bool] = []
    unregister = RegistrationDB.unregister

    def noting(db: RegistrationDB, producer: Producer, topic: str, channel: str = "") -> None:
        with socket.socket() as one:
            open_then.append(one.connect_ex(node.tcp) == 0)
        unregister(db, producer, topic, channel)

    monkeypatch.setattr(RegistrationDB, "unregister", noting)
    async with running_lookupd() as lookupd:
        async with inside(tmp_path, broadcast_address="127.0.0.1", nsqlookupd_tcp_addresses=[lookupd.address]) as node:
            await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
            await eventually(lambda: _knows(lookupd))
        assert open_then == [True, True]


async def _knows(lookupd: Lookupd) -> bool:
    return bool((await lookupd.get("/channels?topic=t"))["channels"])


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
