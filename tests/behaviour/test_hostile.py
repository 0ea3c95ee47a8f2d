"""What takes the originals down (PROTOCOL 8, rows 11 to 18), done to real processes while others work."""

import struct
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api, eventually
from tests.support.wire import MESSAGE, Message, command, http, mpub

_SECONDS = 3.0


@pytest.mark.parametrize("verb", ["empty", "delete"])
async def test_channels_emptied_and_deleted_in_a_loop(verb: str, tmp_path: Path) -> None:
    """While consumers FIN at full speed. nsqd 1.3.0 crashes on the first within seconds (row 11)."""
    finished = 0

    async def publish(stop: anyio.Event) -> None:
        async with await V2.open(node.tcp) as client:
            while not stop.is_set():
                assert await client.ask(mpub(b"t", [b"x"] * 100)) == OK

    async def consume(stop: anyio.Event) -> None:
        nonlocal finished
        while not stop.is_set():
            try:
                async with await V2.consumer(node.tcp, 2500) as client:
                    with anyio.move_on_after(_SECONDS):
                        while not stop.is_set():
                            # Among the messages are errors: FINs of what was emptied meanwhile.
                            frames = [await client.frame() for _ in range(20)]
                            got = [Message.parse(one.payload) for one in frames if one.type == MESSAGE]
                            await client.finish(got)
                            finished += len(got)
            except (AssertionError, anyio.BrokenResourceError) as error:  # its channel is gone
                assert verb == "delete", error
                assert isinstance(error, anyio.BrokenResourceError) or "the server closed" in str(error)

    with Daemon("nsqd", data_path=tmp_path) as node:
        api = Api(node.http)
        await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        stop = anyio.Event()
        rounds = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish, stop)
            for _ in range(3):
                tasks.start_soon(consume, stop)
            enough_s = anyio.current_time() + _SECONDS
            with anyio.fail_after(60):
                while anyio.current_time() < enough_s or rounds < 20 or finished < 100:
                    answer = await api.post(f"/channel/{verb}?topic=t&channel=c")
                    assert answer.status in ((200,) if verb == "empty" else (200, 404))
                    rounds += 1
            stop.set()
        assert await api.ping() == (200, b"OK")
        async with await V2.consumer(node.tcp, 1, "fresh") as client, await V2.open(node.tcp) as publisher:
            assert await publisher.ask(command(b"PUB fresh", b"x")) == OK
            assert (await client.message()).body == b"x"
        assert "Traceback" not in node.stderr


Send = Callable[[Daemon], Coroutine[Any, Any, None]]


def _v2(data: bytes) -> Send:
    async def send(node: Daemon) -> None:
        async with await V2.open(node.tcp) as client:
            await client.send(data)
            await client.shutdown_write()
            while (await client.frame()).type != 1:
                pass

    return send


@pytest.mark.parametrize("size", [-1, -(2**31), 2**31 - 1, 0])
async def test_sizes_that_cannot_be(size: int, tmp_path: Path) -> None:
    """For every command with a body, and for a message of a batch. Lookupd's are in tests/lookupd/test_connection."""
    number = struct.pack(">i", size)
    with Daemon("nsqd", data_path=tmp_path) as node:
        for line in (b"IDENTIFY", b"AUTH", b"PUB t", b"DPUB t 1", b"MPUB t"):
            await _v2(line + b"\n" + number + b"x" * 100)(node)
        await _v2(b"MPUB t\n\0\0\1\0" + number + b"x" * 100)(node)
        await _v2(b"MPUB t\n\0\0\1\0\0\0\0\2" + number + b"x" * 100)(node)
        answer = await Api(node.http).post("/mpub?topic=t&binary=true", number + b"\0\0\0\1x")
        assert answer.status == 413
        assert await Api(node.http).ping() == (200, b"OK")
        assert "Traceback" not in node.stderr


async def test_what_is_only_declared_costs_nothing(tmp_path: Path) -> None:
    """A hundred clients that each promise the largest body there may be, and send a byte of it."""
    with Daemon("nsqd", data_path=tmp_path) as node:
        await eventually(lambda: _stats(node))
        process = psutil.Process(node.pid)
        before = process.memory_info().rss
        async with AsyncExitStack() as stack:
            for number in range(100):
                client = await stack.enter_async_context(await V2.open(node.tcp))
                lines = (b"MPUB t\n\0\x50\0\0\0\x0f\0\0\0\x10\0\0x", b"IDENTIFY\n\0\x50\0\0{", b"PUB t\n\0\x10\0\0x")
                await client.send(lines[number % 3])
            async with await V2.open(node.tcp) as client:
                assert await client.ask(command(b"PUB t", b"x")) == OK
            assert process.memory_info().rss - before < 8 << 20


async def _stats(node: Daemon) -> bool:
    return bool(await Api(node.http).stats())


async def test_deep_json(tmp_path: Path) -> None:
    """Deeper than a stack."""
    deep = b"[" * 500_000
    with Daemon("nsqd", data_path=tmp_path) as node:
        await _v2(command(b"IDENTIFY", b'{"client_id":' + deep))(node)
        await _v2(command(b"IDENTIFY", b'{"other":' + deep + b"]" * 500_000 + b"}"))(node)
        answer = await http(
            node.http, "PUT /config/nsqlookupd_tcp_addresses", deep, headers={"Content-Length": str(len(deep))}
        )
        assert answer.status == 400
        assert await Api(node.http).ping() == (200, b"OK")
        assert "Traceback" not in node.stderr


async def test_limits_keep_what_is_there(tmp_path: Path) -> None:
    """Topics and channels from before the limits were set stay; lookupd's channels count as new ones."""
    with Daemon("nsqlookupd", data_path=tmp_path) as lookupd:
        for name in "abcd":
            assert (await http(lookupd.http, f"POST /channel/create?topic=new&channel={name}")).status == 200
        with Daemon("nsqd", data_path=tmp_path) as node:
            api = Api(node.http)
            for name in "tu":
                await api.do(f"/topic/create?topic={name}")
                for channel in "abc":
                    await api.do(f"/channel/create?topic={name}&channel={channel}")
            await eventually(lambda: node.stop() == 0)
        address = "{}:{}".format(*lookupd.tcp)
        flags = ("--max-topics=3", "--max-channels=2", f"--lookupd-tcp-address={address}")
        with Daemon("nsqd", *flags, data_path=tmp_path) as node:
            api = Api(node.http)
            assert [len((await api.topic(name))["channels"]) for name in "tu"] == [3, 3]
            await api.do("/topic/create?topic=new")
            await eventually(lambda: _channels(api, "new", 2))
            await eventually(lambda: "not all channels that lookupd knows" in node.stderr)
            assert (await api.post("/topic/create?topic=more")).status == 503
            await eventually(lambda: node.stop() == 0)
        with Daemon("nsqd", "--max-topics=1", data_path=tmp_path) as node:
            names = {topic["topic_name"] for topic in (await Api(node.http).stats())["topics"]}
            assert names == {"t", "u", "new"}


async def _channels(api: Api, topic: str, count: int) -> bool:
    return len((await api.topic(topic))["channels"]) == count
