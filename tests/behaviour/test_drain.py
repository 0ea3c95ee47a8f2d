"""Draining real processes: by POST, by SIGTERM, and a rolling restart of two nodes under load."""

import contextlib
import signal
import time
from pathlib import Path

from anyio import to_thread

from tests.support.daemons import Daemon
from tests.support.load import Load, under_load
from tests.support.nodes import V2, Api, eventually
from tests.support.wire import http


async def fill(node: Daemon, *bodies: bytes) -> Api:
    api = Api(node.http)
    await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
    for body in bodies:
        assert (await api.post("/pub?topic=t", body)).status == 200
    return api


async def consume(node: Daemon, count: int) -> list[bytes]:
    client = await V2.consumer(node.tcp, 1)
    bodies = []
    for _ in range(count):
        message = await client.message()
        bodies.append(message.body)
        await client.finish([message])
    await client.close()
    return bodies


async def test_post_drain_ends_the_process_once_it_is_empty(tmp_path: Path) -> None:
    with Daemon("nsqd", data_path=tmp_path) as node:
        api = await fill(node, b"a", b"b")
        assert (await api.post("/drain")).status == 200
        node.await_log("draining")
        assert node.running
        assert await consume(node, 2) == [b"a", b"b"]
        assert node.wait() == 0
        assert "drained" in node.stderr


async def test_sigterm_drains_as_long_as_the_option_says(tmp_path: Path) -> None:
    with Daemon("nsqd", "--drain-timeout=20s", data_path=tmp_path) as node:
        await fill(node, b"a")
        node.signal(signal.SIGTERM)
        node.await_log("draining")
        assert await consume(node, 1) == [b"a"]
        assert node.wait() == 0


async def test_what_is_not_drained_in_time_is_there_after_the_start(tmp_path: Path) -> None:
    with Daemon("nsqd", "--drain-timeout=300ms", data_path=tmp_path) as node:
        await fill(node, b"a")
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began >= 0.3
        assert "not drained in time" in node.stderr
        node.start()
        assert await consume(node, 1) == [b"a"]


async def test_a_second_sigterm_ends_the_drain(tmp_path: Path) -> None:
    with Daemon("nsqd", "--drain-timeout=1h", data_path=tmp_path) as node:
        await fill(node, b"a")
        node.signal(signal.SIGTERM)
        node.await_log("draining")
        assert node.stop() == 0
        assert "drained" not in node.stderr


async def test_sigterm_without_the_option_ends_a_drain_by_http(tmp_path: Path) -> None:
    with Daemon("nsqd", data_path=tmp_path) as node:
        api = await fill(node, b"a")
        assert (await api.post("/drain")).status == 200
        assert node.stop() == 0


# ---- a rolling restart


async def restart(node: Daemon) -> Daemon:
    """Stop it as a supervisor does and start it at the same addresses; returns when it is ready."""
    code = await to_thread.run_sync(node.stop)
    assert code == 0, node.stderr
    assert "drained" in node.stderr
    assert "not drained" not in node.stderr
    fixed = [f"--tcp-address={node.addresses['TCP']}", f"--http-address={node.addresses['HTTP']}"]
    again = Daemon("nsqd", *node.flags, *fixed, data_path=node.data_path)
    await to_thread.run_sync(again.start)

    async def ready() -> bool:
        return (await http(again.http, "GET /readyz")).status == 200

    await eventually(ready)
    return again


async def test_a_rolling_restart_loses_nothing_and_shows_publishers_no_error(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        nodes = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            nodes.append(stack.enter_context(Daemon("nsqd", "--drain-timeout=20s", data_path=tmp_path / name)))
            await Api(nodes[-1].http).do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        load = Load([node.http for node in nodes], [node.tcp for node in nodes])
        async with under_load(load):
            for node in nodes:
                await load.go_on(100)
                again = await restart(node)
                stack.callback(again.kill)
            await load.go_on(100)
        assert load.errors == []
        assert load.tries["503"] and load.tries["E_PUB_FAILED"]  # it was under load
        twice = [body for body, count in load.consumed.items() if count > 1 and body in load.accepted]
        assert len(twice) <= load.tries["cut"], twice
