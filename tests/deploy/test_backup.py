"""docs/deploy/backup.sh: copies of a node under load, each restored, owe what was owed when they were made."""

import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import pytest
from anyio import to_thread

from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api, eventually
from tests.support.wire import mpub

SCRIPT: Final = Path(__file__).parents[2] / "docs" / "deploy" / "backup.sh"
BACKUPS: Final = 4
# Files are rolled, released and moved all the time.
SMALL: Final = ("--max-bytes-per-file=60000", "--sync-timeout=200ms")


@dataclass
class Backup:
    """One copy, and what it must and must not owe."""

    folder: Path
    accepted: set[bytes]  # before it began
    finished: set[bytes] = field(default_factory=set)  # perhaps, when it ended
    done_before: set[bytes] = field(default_factory=set)  # for certain and for a while, when it began


class Work:
    """Publishers and consumers of a node, and what they know."""

    def __init__(self, node: Daemon) -> None:
        self.node = node
        self.accepted: set[bytes] = set()
        self.finished: set[bytes] = set()
        self._number = 0
        self._random = random.Random(7)

    def _bodies(self, count: int) -> list[bytes]:
        self._number += count
        return [b"%d %s" % (self._number - left, b"x" * self._random.randrange(300)) for left in range(count)]

    async def publish(self) -> None:
        async with await V2.open(self.node.tcp) as client:
            while True:
                bodies = self._bodies(self._random.randrange(1, 60))
                assert await client.ask(mpub(b"t", bodies)) == OK
                self.accepted.update(bodies)
                await anyio.sleep(0.003)

    async def publish_deferred(self) -> None:
        api = Api(self.node.http)
        while True:
            (body,) = self._bodies(1)
            target = f"/pub?topic=t&defer={self._random.randrange(1, 4000)}"
            assert (await api.post(target, body)).status == 200
            self.accepted.add(body)
            await anyio.sleep(0.01)

    async def consume(self) -> None:
        async with await V2.consumer(self.node.tcp, 200, msg_timeout=1500) as client:
            while True:
                message = await client.message()
                chance = self._random.random()
                if chance < 0.02:
                    await client.send(b"REQ %s %d\n" % (message.id, self._random.randrange(3000)))
                elif chance > 0.03:  # and some time out
                    self.finished.add(message.body)
                    await client.send(b"FIN %s\n" % message.id)

    async def _has_finished(self, count: int) -> bool:
        """Tell whether the node has read so many FINs, each of another message."""
        clients = (await Api(self.node.http).channel())["clients"]
        return sum(one["finish_count"] for one in clients) >= count

    async def back_up(self, folder: Path) -> Backup:
        done_before = set(self.finished)
        await eventually(lambda: self._has_finished(len(done_before)))
        await anyio.sleep(0.5)  # some checkpoints
        backup = Backup(folder, set(self.accepted), done_before=done_before)
        await to_thread.run_sync(run, self.node.data_path, folder)
        backup.finished = set(self.finished)
        return backup


def run(data_path: Path, folder: Path) -> None:
    done = subprocess.run([SCRIPT, data_path, folder], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (data_path / "backup.links").exists()
    assert not (folder / "topics" / "removed").exists()


async def restored(backup: Backup) -> set[bytes]:
    """Start a node on the copy and return what it delivers, until it has nothing more."""
    got: set[bytes] = set()
    with Daemon("nsqd", *SMALL, data_path=backup.folder) as node:
        api = Api(node.http)
        client = await V2.consumer(node.tcp, 2500)

        async def consume() -> None:
            while True:
                message = await client.message()
                got.add(message.body)
                await client.send(b"FIN %s\n" % message.id)

        async def empty() -> bool:
            return (await api.owes()) == (0, 0, 0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await eventually(empty, deadline_s=30)
            tasks.cancel_scope.cancel()
        await client.close()
        assert (await api.storage())["damaged_records"] == 0
        assert node.stop() == 0
        assert "ERROR" not in node.stderr, node.stderr
    return got


async def test_backups_under_load_owe_what_was_owed(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with Daemon("nsqd", *SMALL, data_path=tmp_path / "node") as node:
        await Api(node.http).do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        work = Work(node)
        async with anyio.create_task_group() as tasks:
            for task in (work.publish, work.publish_deferred, work.consume):
                tasks.start_soon(task)
            backups = [await work.back_up(tmp_path / f"backup{number}") for number in range(BACKUPS)]
            tasks.cancel_scope.cancel()
        assert len(work.finished) > 1000
        node.kill()
    for backup in backups:
        got = await restored(backup)
        missing = backup.accepted - backup.finished - got
        assert not missing, f"{len(missing)} of {len(backup.accepted)}"
        assert not got & backup.done_before, "what was finished well before comes again"


async def test_a_backlog_without_consumers(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    bodies = [b"%d" % number for number in range(3000)]
    with Daemon("nsqd", *SMALL, data_path=tmp_path / "node") as node:
        await Api(node.http).do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        client = await V2.open(node.tcp)
        for start in range(0, len(bodies), 100):
            await client.ask(mpub(b"t", bodies[start : start + 100]))
        await client.close()
        await to_thread.run_sync(run, node.data_path, tmp_path / "backup")
    assert await restored(Backup(tmp_path / "backup", set())) == set(bodies)


async def test_a_node_that_has_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with Daemon("nsqd", *SMALL, data_path=tmp_path / "node") as node:
        await to_thread.run_sync(run, node.data_path, tmp_path / "backup")
    with Daemon("nsqd", *SMALL, data_path=tmp_path / "backup") as node:
        assert node.stop() == 0


@pytest.mark.parametrize("there", ["backup", "node/backup.links"])
def test_it_overwrites_nothing(tmp_path: Path, there: str) -> None:
    (tmp_path / "node").mkdir()
    with Daemon("nsqd", data_path=tmp_path / "node") as node:
        assert node.stop() == 0
    (tmp_path / there).mkdir()
    done = subprocess.run(
        [SCRIPT, tmp_path / "node", tmp_path / "backup"], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode != 0
    assert "exist" in done.stderr
    assert (tmp_path / there).is_dir()


@pytest.mark.parametrize("there", [None, "node/backup.links"])
def test_a_refused_one_leaves_no_folder_that_looks_like_a_backup(tmp_path: Path, there: str | None) -> None:
    """No data path, or another backup of it: the next one is not refused for what this one left."""
    if there:
        (tmp_path / there).mkdir(parents=True)
    result = subprocess.run(
        [SCRIPT, tmp_path / "node", tmp_path / "backup"], capture_output=True, text=True, timeout=90, check=False
    )
    assert result.returncode != 0
    assert not (tmp_path / "backup").exists()
    assert there is None or (tmp_path / there).exists()
