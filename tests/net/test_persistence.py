"""Checkpoints let go of files: stragglers do not pin them, and memory is bounded however far a channel is behind."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, monotonic_ns, time_ns
from unittest.mock import Mock

import anyio
import pytest

from pynsqd.core.broker import Broker
from pynsqd.core.publisher import Failure
from pynsqd.net.persistence import Metadata, Persistence
from pynsqd.net.turn import Turn
from pynsqd.options import Options
from pynsqd.storage import files
from pynsqd.storage.checkpoint import Checkpoint
from pynsqd.storage.log_store import LogStore
from pynsqd.wire.errors import StorageError
from tests.httpapi.running import Logs
from tests.support.nodes import OK, V2, Api, eventually, inside
from tests.support.wire import command, mpub


class _Publisher:
    """Publishes once and hears what has become of it."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.replies = [b"OK"]
        self.held = False
        self.settled: list[Sequence[Failure]] = []
        broker.topic(topic).publishes.publish(b"x", self, "PUB")

    def publish_failed(self, reply: int, verb: str, error: StorageError) -> None:
        raise AssertionError(error)

    def hold(self, first: int) -> None:
        self.held = True

    def let_go(self, failures: Sequence[Failure]) -> None:
        self.settled.append(failures)


_SEGMENT = 20_000
_BODIES = [b"x" * 1000] * 50


async def _files(folder: Path, at_most: int) -> bool:
    return len(list((folder / "topics/t.log").glob("*.seg"))) <= at_most


async def _owes(api: Api, expected: tuple[int, int, int]) -> bool:
    return await api.owes() == expected


@pytest.mark.parametrize("held", ["in flight", "requeued"])
async def test_a_straggler_pins_nothing(held: str, tmp_path: Path) -> None:
    """One message stays in flight, or waits requeued on a paused channel, while thousands pass it."""
    async with inside(tmp_path, max_bytes_per_file=_SEGMENT, checkpoint_interval_ns=10_000_000) as node:
        async with await V2.consumer(node.tcp, 1) as holder, await V2.open(node.tcp) as publisher:
            assert await publisher.ask(mpub(b"t", [b"held"])) == OK
            message = await holder.message()
            if held == "requeued":
                await holder.send(b"RDY 0\nREQ %s 0\n" % message.id)
                await eventually(lambda: _owes(node.api, (1, 0, 0)))
                await node.api.do("/channel/create?topic=t&channel=other")
            async with await V2.consumer(node.tcp, 2500 if held == "in flight" else 0) as consumer:
                for _ in range(6):
                    assert await publisher.ask(mpub(b"t", _BODIES)) == OK
                    if held == "in flight":
                        await holder.send(b"TOUCH %s\n" % message.id)
                        await consumer.finish(await consumer.messages(50))
                if held == "requeued":
                    await consumer.send(b"RDY 2500\n")
                    got = await consumer.messages(301)
                    await consumer.finish([one for one in got if one.body != b"held"])
                    await consumer.send(b"RDY 0\n")
                    await node.api.do("/channel/delete?topic=t&channel=other")
                    (again,) = [one for one in got if one.body == b"held"]
                    await consumer.send(b"REQ %s 0\n" % again.id)
                await eventually(lambda: _files(tmp_path, 4))
                shown = await node.api.storage()
                assert shown["segments"] <= 4
                assert await node.api.owes() == ((0, 1, 0) if held == "in flight" else (1, 0, 0))
    async with inside(tmp_path) as node, await V2.consumer(node.tcp, 10) as consumer:
        again = await consumer.message()
        assert (again.id, again.body) == (message.id, b"held")
        assert again.attempts == (2 if held == "in flight" else 3)
        await consumer.quiet(50)


async def test_many_owed_messages_are_not_written_over_and_over(tmp_path: Path) -> None:
    """In flight are five files' worth: while others work the log of this topic must come to rest."""
    async with inside(tmp_path, max_bytes_per_file=_SEGMENT, checkpoint_interval_ns=10_000_000) as node:
        async with await V2.consumer(node.tcp, 2500) as consumer, await V2.open(node.tcp) as publisher:
            for _ in range(6):
                assert await publisher.ask(mpub(b"t", _BODIES[:20])) == OK
            await consumer.messages(120)
            newest = _newest(tmp_path)
            for _ in range(100):  # each is a turn, and lets a checkpoint follow it; 100 bytes each in another topic
                assert await publisher.ask(command(b"PUB other", b"x")) == OK
                await anyio.sleep(0.01)
            assert _newest(tmp_path) < newest + 10 * _SEGMENT


def _newest(folder: Path) -> int:
    return max(int(path.stem) for path in (folder / "topics/t.log").glob("*.seg"))


async def test_segments_go_when_the_last_channel_is_past_them(tmp_path: Path) -> None:
    async with inside(tmp_path, max_bytes_per_file=_SEGMENT, checkpoint_interval_ns=10_000_000) as node:
        await node.api.do(
            "/topic/create?topic=t", "/channel/create?topic=t&channel=a", "/channel/create?topic=t&channel=b"
        )
        async with await V2.open(node.tcp) as publisher:
            for _ in range(6):
                assert await publisher.ask(mpub(b"t", _BODIES)) == OK
        for name, left in (("a", 6), ("b", 1)):
            async with await V2.consumer(node.tcp, 10, channel=name) as consumer:
                for _ in range(30):
                    await consumer.finish(await consumer.messages(10))
                await eventually(lambda: _owes_of(node.api, name))  # noqa: B023
                await eventually(lambda: _files(tmp_path, left))  # noqa: B023
                assert len(list((tmp_path / "topics/t.log").glob("*.seg"))) >= left - 1


async def _owes_of(api: Api, channel: str) -> bool:
    return await api.owes(channel) == (0, 0, 0)


@pytest.mark.parametrize("limit", [{"mem_queue_size": 10}, {"mem_queue_bytes": 100_000}])
async def test_a_channel_far_behind(limit: dict[str, int], tmp_path: Path) -> None:
    """It reads on from the log in order, whichever limit it has hit."""
    bodies = [b"%06d" % number + b"x" * 500 for number in range(3000)]
    async with inside(tmp_path, **limit) as node:
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        async with await V2.open(node.tcp) as publisher:
            for at in range(0, 3000, 100):
                assert await publisher.ask(mpub(b"t", bodies[at : at + 100])) == OK
        shown = await node.api.channel()
        assert shown["depth"] == 3000
        if "mem_queue_size" in limit:
            assert shown["backend_depth"] == 2990
        async with await V2.consumer(node.tcp, 100) as consumer:
            for at in range(0, 3000, 100):
                got = await consumer.messages(100)
                assert [one.body for one in got] == bodies[at : at + 100]
                await consumer.finish(got)
            await eventually(lambda: _owes(node.api, (0, 0, 0)))


async def test_a_topic_made_anew_in_the_turn_that_deleted_it(tmp_path: Path) -> None:
    """The checkpoint says nothing of it then that was true of the old one."""
    logs, checkpoint = LogStore(tmp_path, 1 << 20, lambda *_: None), Checkpoint(tmp_path)
    broker = Broker(Options(), logs, monotonic_ns(), time_ns())
    turn = Turn(broker, lambda _: None)
    persistence = Persistence(broker, checkpoint, Logs().logger, turn.schedule, Mock(spec=Metadata))
    turn.after_turn = persistence.after_turn
    _Publisher(broker, "t")
    broker.topic("t").channel("c")
    await turn.committed()
    persistence.write_checkpoint()
    end = broker.topics["t"].log.end  # type: ignore[union-attr]
    broker.delete_topic("t")
    broker.topic("t")
    await turn.committed()
    found = Checkpoint(tmp_path)
    assert found.states is not None
    assert found.states["t"]["end"] == end
    assert found.states["t"]["channels"] == {}
    turn.close()
    await persistence.close()
    checkpoint.close()
    logs.close()


async def test_fsyncs_do_not_follow_each_other_without_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages come; and the last of them are synced too."""
    synced: list[tuple[float, int]] = []  # when, and how many bytes the file had

    def counting(descriptor: int) -> None:
        synced.append((monotonic(), os.fstat(descriptor).st_size))
        os.fdatasync(descriptor)

    def is_synced() -> bool:
        (path,) = (tmp_path / "topics/t.log").glob("*.seg")
        return path.stat().st_size in [size for _, size in synced]

    async with (
        inside(tmp_path, sync_every=1, sync_timeout_ns=3600 * 10**9) as node,
        await V2.open(node.tcp) as publisher,
    ):
        await node.api.do("/topic/create?topic=t")
        monkeypatch.setattr(files, "fdatasync", counting)
        assert await publisher.ask(command(b"PUB t", b"x")) == OK
        await eventually(is_synced)
        began = monotonic()
        for _ in range(200):
            assert await publisher.ask(command(b"PUB t", b"x")) == OK
        ended = monotonic()
        await eventually(is_synced)
        during = [at for at, _ in synced if began <= at <= ended]
        assert len(during) <= (ended - began) / 0.015 + 2  # 20 ms lie between two, of which timers take off some


async def test_a_checkpoint_that_fails_is_tried_again_though_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = True
    tried = 0
    written: list[set[str]] = []
    write = Checkpoint.write

    def may_fail(checkpoint: Checkpoint, *, sync: bool = False) -> None:
        nonlocal tried
        tried += 1
        if failing:
            raise StorageError("write: input/output error")
        write(checkpoint, sync=sync)
        written.append(set(Checkpoint(tmp_path).states or {}))

    monkeypatch.setattr("pynsqd.net.persistence._PROBE_S", 0.05)
    async with inside(tmp_path, checkpoint_interval_ns=10_000_000) as node:
        await node.api.do("/topic/create?topic=t")
        monkeypatch.setattr(Checkpoint, "write", may_fail)
        await node.api.do("/topic/delete?topic=t")
        await eventually(lambda: tried > 4)
        failing = False
        await eventually(lambda: written)
        assert written[0] == set()


async def test_the_end_leaves_no_sync_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for while the node closes is synced by the thread, not the loop, and its publishers hear of it."""
    begun = threading.Event()
    go_on = threading.Event()
    threads = []

    def slow(descriptor: int) -> None:
        threads.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(60)
        os.fdatasync(descriptor)

    monkeypatch.setattr(files, "fdatasync", slow)
    logs, checkpoint = LogStore(tmp_path, 1 << 20, lambda *_: None), Checkpoint(tmp_path)
    options = Options(durability="fsync", sync_timeout_ns=1000, checkpoint_interval_ns=3600 * 10**9)
    broker = Broker(options, logs, monotonic_ns(), time_ns())
    turn = Turn(broker, lambda _: None)
    persistence = Persistence(broker, checkpoint, Logs().logger, turn.schedule, Mock(spec=Metadata))
    turn.after_turn = persistence.after_turn
    publishers = [_Publisher(broker, "t")]
    await turn.committed()
    await eventually(begun.is_set)
    publishers.append(_Publisher(broker, "t"))
    await turn.committed()
    async with anyio.create_task_group() as tasks:
        try:
            tasks.start_soon(persistence.close)
            await anyio.wait_all_tasks_blocked()
            publishers.append(_Publisher(broker, "t"))
            _Publisher(broker, "log")
            broker.topic("log").set_durability("log")
            await turn.committed()
        finally:
            go_on.set()
    assert [(one.held, one.settled) for one in publishers] == [(True, [()])] * 3
    assert set(threads) == {"fsync"}
    assert not persistence._fsyncs._thread.is_alive()
    assert persistence._alarm is not None
    assert persistence._alarm.cancelled()
    turn.close()
    checkpoint.close()
