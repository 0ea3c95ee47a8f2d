"""import-nsqd: a real nsqd's data path, and made-up ones with what a real one rarely leaves."""

import fcntl
import json
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from pynsqd.cli import main
from tests.support.daemons import Daemon
from tests.support.wire import Message, WireClient, command, mpub

NSQD = Path(__file__).parents[2] / "bench/peers/bin/nsqd"
Got = dict[bytes, list[int]]  # body to the attempts it came with


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def post(node: Daemon, path: str) -> None:
    with urlopen(Request(f"http://{node.addresses['HTTP']}{path}", method="POST"), timeout=30) as answer:
        answer.read()


def stats(node: Daemon) -> dict[str, Any]:
    with urlopen(f"http://{node.addresses['HTTP']}/stats?format=json", timeout=30) as answer:
        return {topic["topic_name"]: topic for topic in json.load(answer)["topics"]}


async def publish(node: Daemon, topic: str, bodies: list[bytes]) -> None:
    async with await WireClient.open(node.tcp) as client:
        for begin in range(0, len(bodies), 500):
            await client.send(mpub(topic.encode(), bodies[begin : begin + 500]))
            assert (await client.frame()).payload == b"OK"


async def take(client: WireClient, topic: str, channel: str, count: int) -> list[Message]:
    """Receive ``count`` messages without finishing them."""
    await client.send(command(f"SUB {topic} {channel}".encode()))
    assert (await client.frame()).payload == b"OK"
    await client.send(command(b"RDY %d" % min(count, 2500)))
    return [await client.message() for _ in range(count)]


async def drain(node: Daemon, topic: str, channel: str, count: int) -> list[Message]:
    """Receive and finish ``count`` messages, and see that there are no more."""
    got: list[Message] = []
    async with await WireClient.open(node.tcp) as client:
        await client.send(command(f"SUB {topic} {channel}".encode()) + command(b"RDY 500"))
        assert (await client.frame()).payload == b"OK"
        while len(got) < count:
            got.append(await client.message())
            await client.send(command(b"FIN " + got[-1].id))
        await client.quiet(50)
    return got


def by_body(messages: list[Message]) -> Got:
    got: Got = {}
    for message in messages:
        got.setdefault(message.body, []).append(message.attempts)
    return got


def numbered(begin: int, end: int) -> list[bytes]:
    return [b"message %06d" % number for number in range(begin, end)]


@pytest.mark.skipif(not NSQD.exists(), reason="no real nsqd: bench/peers/build.sh builds it where Go is")
@pytest.mark.parametrize("flags", [["--mem-queue-size=0"], []], ids=["disk", "memory"])
async def test_a_real_nsqd_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    source, target = tmp_path / "nsqd", tmp_path / "pynsqd"
    source.mkdir()
    target.mkdir()
    monkeypatch.setenv("NSQD_BINARY", str(NSQD))
    with Daemon("nsqd", *flags, "--max-bytes-per-file=20000", data_path=source) as nsqd:
        for topic in ("orders", "held"):
            post(nsqd, f"/topic/create?topic={topic}")
        for channel in ("fast", "slow", "stuck"):
            post(nsqd, f"/channel/create?topic=orders&channel={channel}")
        await publish(nsqd, "orders", numbered(0, 2000))
        fast = await drain_some(nsqd, "orders", "fast", 700)
        async with await WireClient.open(nsqd.tcp) as client:
            tried = await take(client, "orders", "slow", 30)
            for message in tried[:10]:
                await client.send(command(b"REQ " + message.id + b" 0"))
            for message in tried[10:20]:
                await client.send(command(b"FIN " + message.id))
            again = {message.body for message in tried[:10]}
            tries = Counter(message.body for message in tried)
            tries.update([(await client.message()).body for _ in range(20)])
            post(nsqd, "/channel/pause?topic=orders&channel=stuck")
            post(nsqd, "/channel/create?topic=orders&channel=late")
            await publish(nsqd, "orders", numbered(2000, 2500))
            post(nsqd, "/topic/create?topic=alone")
            await publish(nsqd, "alone", numbered(0, 300))
            post(nsqd, "/channel/create?topic=held&channel=c")
            await publish(nsqd, "held", numbered(0, 40))
            until = time.monotonic() + 60
            while stats(nsqd)["held"]["channels"][0]["depth"] < 40:
                assert time.monotonic() < until
            post(nsqd, "/topic/pause?topic=held")
            await publish(nsqd, "held", numbered(40, 100))
            assert main(["import-nsqd", str(source), f"--data-path={target}"]) == 1
            assert capsys.readouterr().err == f"pynsqd import-nsqd: {source} is in use: stop nsqd first\n"
            assert nsqd.stop() == 0
    assert again
    monkeypatch.delenv("NSQD_BINARY")

    before = contents(source)
    assert main(["import-nsqd", str(source), f"--data-path={target}"]) == 0
    assert contents(source) == before
    assert main(["log", "verify", str(target)]) == 0

    finished = {message.body for message in tried[10:20]}
    everything = numbered(0, 2500)
    with Daemon("nsqd", data_path=target) as node:
        found = stats(node)
        assert {name: topic["paused"] for name, topic in found.items()} == {
            "orders": False,
            "alone": False,
            "held": True,
        }
        orders = {one["channel_name"]: (one["paused"], one["depth"]) for one in found["orders"]["channels"]}
        depths = {"fast": 2500 - len(fast), "slow": 2490, "stuck": 2500}
        late = orders.pop("late")
        assert orders == {name: (name == "stuck", depth) for name, depth in depths.items()}
        assert 500 <= late[1] <= 2500
        assert (found["alone"]["depth"], found["held"]["depth"]) == (300, 60)
        assert found["held"]["channels"][0]["depth"] == 40
        post(node, "/channel/unpause?topic=orders&channel=stuck")
        got = by_body(await drain(node, "orders", "fast", depths["fast"]))
        assert got.keys() == set(everything) - {message.body for message in fast}
        got = by_body(await drain(node, "orders", "slow", 2490))
        assert got == {body: [tries[body] + 1] for body in everything if body not in finished}
        assert by_body(await drain(node, "orders", "stuck", 2500)) == {body: [1] for body in everything}
        assert by_body(await drain(node, "orders", "late", late[1])).keys() >= set(numbered(2000, 2500))
        assert [one.body for one in await drain(node, "alone", "new", 300)] == numbered(0, 300)
        assert {one.body for one in await drain(node, "held", "c", 40)} == set(numbered(0, 40))
        post(node, "/topic/unpause?topic=held")
        assert [one.body for one in await drain(node, "held", "c", 60)] == numbered(40, 100)
        assert node.stop() == 0


async def drain_some(node: Daemon, topic: str, channel: str, count: int) -> list[Message]:
    """Receive and finish ``count`` messages of more."""
    async with await WireClient.open(node.tcp) as client:
        got = await take(client, topic, channel, count)
        for message in got:
            await client.send(command(b"FIN " + message.id))
        await client.send(command(b"CLS"))
        while (await client.frame()).payload != b"CLOSE_WAIT":
            pass
    return got


# -- made-up data paths ------------------------------------------------------------------------------------------


class Source:
    """Writes a data path as nsqd does (PROTOCOL 3.5, 3.7)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def metadata(self, **topics: dict[str, bool]) -> None:
        """Write nsqd.dat: topic to channels and whether they are paused."""
        entries = [
            {"name": name, "paused": False, "channels": [{"name": one, "paused": p} for one, p in channels.items()]}
            for name, channels in topics.items()
        ]
        self.path("nsqd.dat").write_text(json.dumps({"topics": entries, "version": "9.9.9", "more": {}}))

    def path(self, name: str) -> Path:
        return self.folder / name

    def queue(self, name: str, messages: list[tuple[int, int]], per_file: int = 1000) -> None:
        """Write the queue of a topic or channel: numbers and attempts."""
        runs = [messages[at : at + per_file] for at in range(0, len(messages), per_file)] or [[]]
        data = b""
        for number, run in enumerate(runs):
            data = b"".join(self.record(*one) for one in run)
            self.path(f"{name}.diskqueue.{number:06d}.dat").write_bytes(data)
        meta = f"{len(messages)}\n0,0\n{len(runs) - 1},{len(data)}\n"
        self.path(f"{name}.diskqueue.meta.dat").write_text(meta)

    @staticmethod
    def record(number: int, attempts: int) -> bytes:
        body = b"message %06d" % number
        return struct.pack(">iqH", 26 + len(body), 1_700_000_000 + number, attempts) + b"%016x" % number + body


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "nsqd")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "pynsqd"
    folder.mkdir()
    return folder


def plain(*numbers: int) -> list[tuple[int, int]]:
    return [(number, 0) for number in numbers]


async def test_every_channel_gets_its_own_backlog(source: Source, target: Path) -> None:
    """Backlogs that neither contain each other nor begin alike, with copies and attempts; more files than one."""
    backlogs = {
        "most": plain(*range(100)),
        "end": plain(*range(60, 100)),
        "holes": [*plain(*range(0, 90, 3)), (90, 7), (91, 65535)],
        "other": [*plain(*range(80, 100)), *plain(*range(200, 210))],
        "none": [],
        "turned": [*plain(*reversed(range(70, 80)))],
    }
    source.metadata(t=dict.fromkeys(backlogs, False))
    for name, backlog in backlogs.items():
        source.queue(f"t:{name}", backlog, per_file=7)
    source.queue("t", plain(*range(300, 350)), per_file=11)
    assert main(["import-nsqd", str(source.folder), f"--data-path={target}"]) == 0
    with Daemon("nsqd", data_path=target) as node:
        for name, backlog in backlogs.items():
            expected = [*backlog, *plain(*range(300, 350))]
            got = await drain(node, "t", name, len(expected))
            as_numbers = [(int(one.id, 16), one.attempts, one.timestamp_ns - 1_700_000_000) for one in got]
            assert sorted(as_numbers) == sorted((one, (tries + 1) % 65536, one) for one, tries in expected), name
            assert all(one.body == b"message %06d" % int(one.id, 16) for one in got)


async def test_two_copies_of_a_message_are_one_message(source: Source, target: Path) -> None:
    """An nsqd that was killed and started again leaves such."""
    source.metadata(t={"a": False})
    source.queue("t:a", plain(1, 2, 3, 2, 4))
    assert main(["import-nsqd", str(source.folder), f"--data-path={target}"]) == 0
    with Daemon("nsqd", data_path=target) as node:
        assert [int(one.id, 16) for one in await drain(node, "t", "a", 4)] == [1, 2, 3, 4]


@pytest.mark.parametrize("queue", ["t:a", "t:b", "t"])
@pytest.mark.parametrize("attempts", [0, 1])
@pytest.mark.parametrize("at", [4 + 7, 4 + 26 + 13], ids=["time", "body"])
def test_two_messages_with_one_id_are_refused(source: Source, target: Path, queue: str, attempts: int, at: int) -> None:
    """An nsqd that was killed, started again and published to has been seen to leave such."""
    source.metadata(t={"a": False, "b": False})
    source.queue("t:a", plain(*range(1, 10)))
    source.queue(queue, [(1, 0), (2, 0), (3, 0), (2, attempts), (4, 0)])
    length = len(Source.record(1, 0))
    _patch(source.path(f"{queue}.diskqueue.000000.dat"), 3 * length + at, b"9")
    assert f"queue {queue} has two messages with the id 0000000000000002" in refused(source.folder, target)


async def test_a_paused_topic_keeps_its_backlog(source: Source, target: Path) -> None:
    source.metadata(t={"a": False})
    document = json.loads(source.path("nsqd.dat").read_text())
    document["topics"][0]["paused"] = True
    source.path("nsqd.dat").write_text(json.dumps(document))
    source.queue("t:a", plain(1, 2))
    source.queue("t", plain(3, 4, 5))
    assert main(["import-nsqd", str(source.folder), f"--data-path={target}"]) == 0
    with Daemon("nsqd", data_path=target) as node:
        assert stats(node)["t"]["depth"] == 3
        assert len(await drain(node, "t", "a", 2)) == 2
        post(node, "/topic/unpause?topic=t")
        assert len(await drain(node, "t", "a", 3)) == 3


async def test_a_kill_right_after_the_import_loses_nothing(source: Source, target: Path) -> None:
    source.metadata(t={"a": False, "b": False})
    source.queue("t:a", [*plain(*range(50)), (50, 3)])
    source.queue("t:b", plain(*range(40, 50), 70))
    assert main(["import-nsqd", str(source.folder), f"--data-path={target}"]) == 0
    with Daemon("nsqd", data_path=target) as node:
        async with await WireClient.open(node.tcp) as client:
            await take(client, "t", "a", 51)
            node.kill()
        node.start()
        got = by_body(await drain(node, "t", "a", 51))
        assert got.keys() == {b"message %06d" % number for number in range(51)}
        assert got[b"message 000050"][0] >= 4
        assert len(await drain(node, "t", "b", 11)) == 11


def test_nothing_but_names(source: Source, target: Path) -> None:
    source.path("nsqd.dat").write_text('{"topics":null,"version":"1.3.0"}')
    assert main(["import-nsqd", str(source.folder), f"--data-path={target}"]) == 0
    assert sorted(path.name for path in target.iterdir()) == ["pynsqd.checkpoint.1", "pynsqd.meta", "topics"]


# -- refusals ----------------------------------------------------------------------------------------------------


def refused(source: Path, target: Path) -> str:
    """Import, which must fail with one line and leave both folders alone; returns the line."""
    before = contents(source), sorted(path.name for path in target.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("pynsqd.tools.command.warn", lambda _, text: lines.append(text))
        assert main(["import-nsqd", str(source), f"--data-path={target}"]) == 1
    assert (contents(source), sorted(path.name for path in target.iterdir())) == before
    (line,) = lines
    assert "\n" not in line
    return line


@pytest.fixture
def good(source: Source) -> Source:
    """A data path that would be taken: 30 messages in three files of channel t:c, 5 on the topic."""
    source.metadata(t={"c": False})
    source.queue("t:c", plain(*range(30)), per_file=10)
    source.queue("t", plain(*range(30, 35)))
    return source


LAST = "t:c.diskqueue.000002.dat"
META = "t:c.diskqueue.meta.dat"


def _append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


def _patch(path: Path, at: int, data: bytes) -> None:
    old = path.read_bytes()
    path.write_bytes(old[:at] + data + old[at + len(data) :])


def _spoiled(good: Source) -> Iterator[tuple[str, str]]:
    path = good.path
    cases = {
        "no metadata": (lambda: path("nsqd.dat").unlink(), "no data path of nsqd"),
        "bad metadata": (lambda: path("nsqd.dat").write_text("{"), "nsqd.dat is damaged"),
        "bad name": (lambda: good.metadata(**{"a b": {}}), "is no name of a topic"),
        "written on": (lambda: _append(path(LAST), Source.record(1, 0)), "nsqd was killed"),
        "file missing": (lambda: path("t:c.diskqueue.000001.dat").unlink(), "is missing"),
        "file too many": (lambda: path("t:c.diskqueue.000003.dat").write_bytes(b""), "none that the meta file knows"),
        "meta missing": (lambda: path(META).unlink(), "nsqd was killed"),
        "meta bad": (lambda: path(META).write_text("1\n0,0\n"), "is damaged"),
        "meta backwards": (lambda: path(META).write_text("1\n2,0\n1,0\n"), "makes no sense"),
        "depth wrong": (lambda: _patch(path(META), 0, b"31"), "has 30 messages, its meta file says 31"),
        "length small": (lambda: _patch(path(LAST), 0, struct.pack(">i", 25)), "bad record at 0"),
        "length large": (lambda: _patch(path(LAST), 0, struct.pack(">i", 1 << 30)), "bad record at 0"),
        "id bad": (lambda: _patch(path(LAST), 14, b"x"), "is no message id"),
        "orphan": (lambda: path("x.diskqueue.meta.dat").write_text("0\n0,0\n0,0\n"), "belongs to no topic"),
    }
    for name, (spoil, text) in cases.items():
        kept = {one.name: one.read_bytes() for one in good.folder.iterdir()}
        spoil()  # type: ignore[no-untyped-call]
        yield name, text
        for one in good.folder.iterdir():
            one.unlink()
        for file, data in kept.items():
            path(file).write_bytes(data)


def test_what_is_in_doubt_is_refused(good: Source, target: Path) -> None:
    for name, text in _spoiled(good):
        assert text in refused(good.folder, target), name
    assert main(["import-nsqd", str(good.folder), f"--data-path={target}"]) == 0


def test_a_target_in_use_or_not_empty_is_refused(good: Source, target: Path) -> None:
    descriptor = os.open(target, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert "is in use" in refused(good.folder, target)
    os.close(descriptor)
    (target / "pynsqd.meta").write_bytes(b"")
    assert "is not empty: it has pynsqd.meta" in refused(good.folder, target)


def test_a_failing_disk_leaves_nothing_behind(good: Source, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pynsqd.storage.files.writev", fail)
    assert "no space left on device" in refused(good.folder, target)


def test_a_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-nsqd"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
