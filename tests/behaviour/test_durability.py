"""--durability: what an OK promises, per node and per topic (P1), and what a slow or failing fsync does to others."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from pynsqd import daemon
from pynsqd.storage import files as files_module
from pynsqd.storage.checkpoint import FILE_NAMES
from tests.support.daemons import Daemon
from tests.support.failing_files import FailingFiles
from tests.support.nodes import DEADLINE_S, OK, V2, Api, Inside, eventually, inside, owed_in_checkpoint
from tests.support.wire import ERROR, WireClient, command, http, mpub


async def test_acknowledged_messages_survive_a_kill(tmp_path: Path) -> None:
    """Killed right after the last OK, by default options: PUB, MPUB, DPUB, /pub, /mpub, with and without channels."""
    with Daemon("nsqd", "--checkpoint-interval=1s", data_path=tmp_path) as node:
        api = Api(node.http)
        async with await V2.open(node.tcp) as client:
            for topic in (b"t", b"bare"):
                if topic == b"t":
                    await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
                name = topic.decode()
                assert (await api.post(f"/pub?topic={name}", b"http")).status == 200
                assert (await api.post(f"/mpub?topic={name}", b"h1\nh2")).status == 200
                assert (await api.post(f"/pub?topic={name}&defer=600000", b"far")).status == 200
                assert await client.ask(command(b"PUB " + topic, b"one")) == OK
                assert await client.ask(mpub(topic, [b"m1", b"m2"])) == OK
                assert await client.ask(command(b"DPUB " + topic + b" 60000", b"near")) == OK
        node.kill()
        node.start()
        api = Api(node.http)
        assert await api.owes() == (6, 0, 2)
        assert (await api.topic("bare"))["depth"] == 8
        for name in ("t", "bare"):
            async with await V2.consumer(node.tcp, 10, name) as client:
                got = [message.body for message in await client.messages(6)]
                assert got == [b"http", b"h1", b"h2", b"one", b"m1", b"m2"]


async def test_requeued_messages_survive_a_kill(tmp_path: Path) -> None:
    """A REQ is kept at once, with its delay and attempts; no checkpoint is needed."""
    with Daemon("nsqd", "--checkpoint-interval=1s", data_path=tmp_path) as node:
        api = Api(node.http)
        async with await V2.consumer(node.tcp, 2) as client:
            await client.send(mpub(b"t", [b"now", b"later"]))
            assert await client.frame() == OK
            now, later = await client.messages(2)
            await client.send(b"RDY 0\nREQ %s 0\nREQ %s 600000\n" % (now.id, later.id))
            await eventually(lambda: _owes(api, (1, 0, 1)))
            node.kill()
        node.start()
        assert await Api(node.http).owes() == (1, 0, 1)
        async with await V2.consumer(node.tcp, 2) as client:
            again = await client.message()
            assert (again.id, again.body) == (now.id, b"now")
            assert again.attempts == 2
            await client.quiet(50)


async def _owes(api: Api, expected: tuple[int, int, int]) -> bool:
    return await api.owes() == expected


async def test_durability_of_a_topic(tmp_path: Path) -> None:
    """Set by /topic/create, shown by /stats, kept over a restart, refused when it is no durability."""
    async with inside(tmp_path) as node:
        for name in ("memory", "log", "fsync"):
            await node.api.do(f"/topic/create?topic={name}&durability={name}")
            assert (await node.api.storage(name))["durability"] == name
        await node.api.do("/topic/create?topic=default", "/topic/create?topic=log&durability=fsync")
        await node.api.do("/topic/create?topic=fsync")  # says nothing about it
        answer = await node.api.post("/topic/create?topic=other&durability=disk")
        assert (answer.status, answer.body) == (400, b'{"message":"INVALID_DURABILITY"}')
        assert [one["topic_name"] for one in (await node.api.stats())["topics"]] == [
            "default",
            "fsync",
            "log",
            "memory",
        ]
    async with inside(tmp_path, durability="fsync") as node:
        for name, durability in {"memory": "memory", "log": "fsync", "fsync": "fsync", "default": "log"}.items():
            assert (await node.api.storage(name))["durability"] == durability


# -- fsync -----------------------------------------------------------------------------------------------------------


async def test_ok_waits_for_the_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies are held and stay in order; other clients get messages and heartbeats, and publish to other topics."""
    files = FailingFiles(monkeypatch)
    async with inside(tmp_path, durability="fsync") as node:
        await node.api.do(
            "/topic/create?topic=t", "/channel/create?topic=t&channel=c", "/topic/create?topic=log&durability=log"
        )
        async with (
            await V2.consumer(node.tcp, 10, heartbeat_interval=1000) as consumer,
            await V2.open(node.tcp) as publisher,
            await V2.open(node.tcp) as other,
            anyio.create_task_group() as tasks,
        ):
            go_on = files.hold("fdatasync")
            answers: list[int] = []
            try:
                await publisher.send(command(b"PUB t", b"a") + mpub(b"t", [b"b"]) + command(b"DPUB t 60000", b"d"))
                tasks.start_soon(_post, node, "/pub?topic=t", b"c", answers)
                assert {(await consumer.message()).body for _ in "abc"} == {b"a", b"b", b"c"}
                await eventually(lambda: files.calls["fdatasync"])
                assert await other.ask(command(b"PUB log", b"x")) == OK
                await publisher.send(b"NOP\nTOUCH 0123456789abcdef\n")  # a reply behind the held ones
                # What comes next after messages is a heartbeat, a second later at most.
                assert (await super(V2, consumer).frame()).payload == b"_heartbeat_"
                assert not answers
                await publisher.quiet(1)
            finally:
                go_on.set()
            assert [await publisher.frame() for _ in range(3)] == [OK, OK, OK]
            assert (await publisher.frame()).type == ERROR
            await eventually(lambda: answers == [200])


async def test_a_publisher_that_never_pauses_gets_its_oks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fsync answers what had come before it, while there is always more that is not on the disk yet."""
    slow = threading.Semaphore(0)
    real = files_module.fdatasync
    waiting = []

    def fdatasync(descriptor: int) -> None:
        waiting.append(descriptor)
        assert slow.acquire(timeout=30)
        real(descriptor)

    async with inside(tmp_path, durability="fsync") as node, await V2.open(node.tcp) as publisher:
        assert await publisher.ask(command(b"PUB t", b"0")) == OK
        monkeypatch.setattr(files_module, "fdatasync", fdatasync)
        try:
            await publisher.send(command(b"PUB t", b"1"))
            for number in range(2, 6):
                await eventually(lambda: waiting)
                waiting.clear()
                await publisher.send(command(b"PUB t", b"%d" % number))  # the fsync that is under way is not for it
                await eventually(lambda: _has_messages(node.api, number + 1))  # noqa: B023
                slow.release()
                assert await publisher.frame() == OK
        finally:
            slow.release(100)
        assert await publisher.frame() == OK


async def _has_messages(api: Api, count: int) -> bool:
    return bool((await api.topic())["message_count"] == count)


async def _post(node: Inside, target: str, body: bytes, answers: list[int]) -> None:
    answers.append((await node.api.post(target, body)).status)


@pytest.mark.parametrize("verb", ["PUB", "MPUB", "DPUB"])
async def test_a_failed_fsync_refuses(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E_…_FAILED and 503, unhealthy; the probe heals it."""
    files = FailingFiles(monkeypatch)
    commands = {"PUB": command(b"PUB t", b"a"), "MPUB": mpub(b"t", [b"a"]), "DPUB": command(b"DPUB t 90000", b"a")}
    async with inside(tmp_path, durability="fsync") as node:
        async with await V2.open(node.tcp) as publisher:
            assert await publisher.ask(command(b"PUB t", b"good")) == OK
            files.fail("fdatasync")
            failed = await publisher.ask(commands[verb])
            assert failed.type == ERROR
            assert failed.payload.startswith(f"E_{verb}_FAILED {verb} failed sync {tmp_path}".encode())
            assert failed.payload.endswith(b"input/output error")
            await publisher.expect_closed()
        assert await node.api.ping() == (500, b"NOK - " + failed.payload.partition(b"failed ")[2])
        refused = await node.api.post("/pub?topic=t", b"b")
        assert refused.status == 503
        assert (await node.api.stats())["health"].startswith("NOK - sync ")
        files.heal()
        await eventually(lambda: _is_well(node.api))
        async with await V2.open(node.tcp) as publisher:
            assert await publisher.ask(command(b"PUB t", b"c")) == OK


async def _is_well(api: Api) -> bool:
    return await api.ping() == (200, b"OK")


async def test_deferring_heals_after_a_failed_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the node is well again, messages for the time that the failure hit are taken again."""
    files = FailingFiles(monkeypatch)
    async with inside(tmp_path, durability="fsync") as node:
        files.fail("fdatasync")
        assert (await node.api.post("/pub?topic=t&defer=900000", b"a")).status == 503
        files.heal()
        await eventually(lambda: _is_well(node.api))
        # The bucket of due times is 69 s wide: one of these is in the one that failed.
        answers = [
            (await node.api.post(f"/pub?topic=t&defer={defer}", b"a")).status for defer in (830000, 895000, 900000)
        ]
        assert answers == [200, 200, 200]


async def test_sigterm_while_an_fsync_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's own last sync and one in a thread meet at several files; neither trips over the other."""
    go_on, in_thread = threading.Event(), threading.Event()
    real = files_module.fdatasync

    def slow_in_threads(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread() and not in_thread.is_set():
            in_thread.set()
            assert go_on.wait(60)
        real(descriptor)

    async with inside(tmp_path, sync_every=3, max_bytes_per_file=1000) as node:
        await node.api.do("/topic/create?topic=t")
        monkeypatch.setattr(files_module, "fdatasync", slow_in_threads)
        for _ in range(3):
            assert (await node.api.post("/pub?topic=t", b"x" * 900)).status == 200
        await eventually(in_thread.is_set)
        threading.Timer(0.3, go_on.set).start()
    async with inside(tmp_path) as node:
        assert (await node.api.topic())["depth"] == 3


async def test_sigterm_lets_the_oks_leave_that_wait_for_an_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of TCP, of HTTP and of a body in chunks, which takes another way; what comes after is refused."""
    monkeypatch.setattr(daemon, "_LAST_FSYNC_S", 60.0)
    files = FailingFiles(monkeypatch)
    answers: list[int] = []
    async with anyio.create_task_group() as tasks:
        async with inside(tmp_path, durability="fsync") as node:
            await node.api.do("/topic/create?topic=t")
            publisher = await V2.open(node.tcp)
            idle = await V2.open(node.tcp)
            http_publisher = await WireClient.open(node.api.address, b"", DEADLINE_S)
            go_on = files.hold("fdatasync")
            await publisher.send(command(b"PUB t", b"a"))
            await eventually(lambda: files.calls["fdatasync"])
            await publisher.send(command(b"PUB t", b"b"))  # for the next fsync
            tasks.start_soon(_post, node, "/pub?topic=t", b"c", answers)
            tasks.start_soon(_post_chunked, node, answers)
            await eventually(lambda: _has_messages(node.api, 4))
            tasks.start_soon(_publish_late, idle, http_publisher, go_on)
        assert [await publisher.frame() for _ in "ab"] == [OK, OK]
        await publisher.expect_closed()
        await eventually(lambda: answers == [200, 200])
        for client in (publisher, idle, http_publisher):
            await client.close()
    async with inside(tmp_path) as node:
        assert (await node.api.topic())["depth"] == 4


async def _post_chunked(node: Inside, answers: list[int]) -> None:
    chunked = {"Transfer-Encoding": "chunked"}
    answers.append((await http(node.api.address, "POST /pub?topic=t", b"1\r\nd\r\n0\r\n\r\n", headers=chunked)).status)


async def _publish_late(idle: V2, http_publisher: WireClient, go_on: threading.Event) -> None:
    """Publish when the node closes connections, which is what ``idle`` sees, then have the fsync end."""
    try:
        await idle.expect_closed()
        await http_publisher.send(b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\ne")
        assert b" 503 " in await http_publisher.some()
    finally:
        go_on.set()


async def test_sigterm_waits_only_so_long_for_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then publishers get an error instead of the OK, and can go elsewhere; the messages are kept all the same."""
    monkeypatch.setattr(daemon, "_LAST_FSYNC_S", 0.01)
    files = FailingFiles(monkeypatch)
    answers: list[int] = []
    async with anyio.create_task_group() as tasks:
        async with inside(tmp_path, durability="fsync") as node:
            publisher = await V2.open(node.tcp)
            go_on = files.hold("fdatasync")
            await publisher.send(command(b"PUB t", b"a"))
            await eventually(lambda: files.calls["fdatasync"])
            await publisher.send(command(b"PUB t", b"b"))
            await eventually(lambda: _has_messages(node.api, 2))
            tasks.start_soon(_post, node, "/pub?topic=t", b"c", answers)
            await eventually(lambda: _has_messages(node.api, 3))
            tasks.start_soon(_await_refusal, publisher, answers, go_on)
        await publisher.close()
    async with inside(tmp_path) as node:
        assert (await node.api.topic())["depth"] == 3


async def _await_refusal(publisher: V2, answers: list[int], go_on: threading.Event) -> None:
    try:
        refusal = await publisher.frame()
        assert (refusal.type, refusal.payload[:12]) == (ERROR, b"E_PUB_FAILED")
        await publisher.expect_closed()
        await eventually(lambda: answers == [503])
    finally:
        go_on.set()


@pytest.mark.parametrize("torn", ["", *FILE_NAMES])
async def test_a_topic_made_anew_survives_a_loss_of_power(
    torn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes checkpoints back to what was synced of them, also to before a deletion, a kill and a start.

    And of one that was being written it leaves nothing of use.
    """
    before, killed, left = tmp_path / "before", tmp_path / "killed", tmp_path / "left"
    before.mkdir()
    settings = {"durability": "fsync", "checkpoint_interval_ns": 10_000_000}
    create = ("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
    async with inside(before, **settings) as node:
        await node.api.do(*create)
        async with await V2.consumer(node.tcp, 20) as client:
            assert (await node.api.post("/mpub?topic=t", b"\n".join([b"old"] * 20))).status == 200
            messages = await client.messages(20)
            await eventually(lambda: owed_in_checkpoint(before) == 20)
            await client.finish(messages)
            await eventually(lambda: owed_in_checkpoint(before) == 0)
        synced = {path.name: path.read_bytes() for path in before.glob("*.checkpoint.*")}
        await node.api.do("/topic/delete?topic=t")
        shutil.copytree(before, killed)

    def sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced[path.name] = path.read_bytes()

    monkeypatch.setattr("pynsqd.storage.checkpoint.os.fsync", sync)
    async with inside(killed, **settings) as node:
        await node.api.do(*create)
        assert (await node.api.post("/mpub?topic=t", b"1\n2\n3")).status == 200
        shutil.copytree(killed, left)
        for name in FILE_NAMES:
            (left / name).write_bytes(synced[name] if name != torn else b"")
    async with inside(left, **settings) as node, await V2.consumer(node.tcp, 10) as client:
        assert sorted([message.body for message in await client.messages(3)]) == [b"1", b"2", b"3"]


async def test_memory_promises_nothing_after_a_kill_but_all_after_a_stop(tmp_path: Path) -> None:
    """nsqd's contract, for those who want it: no file is written while there is room in memory."""
    async with inside(tmp_path, durability="memory") as node:
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        for _ in range(3):
            assert (await node.api.post("/pub?topic=t", b"x")).status == 200
        assert (await node.api.post("/pub?topic=t&defer=600000", b"x")).status == 200
        shown: dict[str, Any] = await node.api.storage()
        assert shown["bytes"] == 0
        assert await node.api.owes() == (3, 0, 1)
    assert owed_in_checkpoint(tmp_path) == 3
    async with inside(tmp_path, durability="memory") as node:
        assert await node.api.owes() == (3, 0, 1)
