"""A full disk refuses what is new, keeps what it has, and heals by itself (P6)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pynsqd.storage.checkpoint import Checkpoint
from pynsqd.wire.errors import StorageError
from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api, eventually, inside, owed_in_checkpoint
from tests.support.wire import ERROR, command, mpub

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a small file system")
_BODY = b"x" * 20_000


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


async def _is_well(api: Api) -> bool:
    return await api.ping() == (200, b"OK")


@needs_root
@pytest.mark.parametrize("durability", ["log", "fsync"])
async def test_full_and_free_again(durability: str, tmp_path: Path) -> None:
    """Publishes fail over TCP and HTTP, consumers drain on, nothing acknowledged is lost, and it heals."""
    with (
        _small_disk(tmp_path / "disk") as disk,
        Daemon("nsqd", f"--durability={durability}", "--max-bytes-per-file=200000", data_path=disk) as node,
    ):
        (disk / "foreign").write_bytes(bytes(500_000))
        api = Api(node.http)
        await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        acknowledged = 0
        async with await V2.open(node.tcp) as publisher:
            while (answer := await publisher.ask(command(b"PUB t", b"%06d" % acknowledged + _BODY))) == OK:
                acknowledged += 1
            assert answer.type == ERROR
            assert answer.payload.startswith(b"E_PUB_FAILED PUB failed write ")
            assert b"no space left on device" in answer.payload
            await publisher.expect_closed()
        assert acknowledged > 50
        assert (await api.post("/pub?topic=t", _BODY)).status == 503
        assert (await api.post("/pub?topic=t&defer=1000", _BODY)).status == 503
        status, reason = await api.ping()
        assert status == 500
        assert b"no space left on device" in reason
        assert (await api.stats())["health"] == reason.decode()
        _fill(disk / "foreign-too")
        node.kill()  # in that state nothing is lost either
        node.start()
        api = Api(node.http)
        assert await api.owes() == (acknowledged, 0, 0)
        async with await V2.consumer(node.tcp, 3) as consumer:
            first, second, third = await consumer.messages(3)
            await consumer.send(b"RDY 0\n")
            await consumer.finish([first])
            await consumer.send(b"REQ %s 0\n" % second.id)  # it cannot be written down, and comes again all the same
            await eventually(lambda: _owes(api, (acknowledged - 2, 1, 0)))
            await consumer.finish([third])
            await consumer.send(b"RDY 2000\n")
            rest = await consumer.messages(acknowledged - 2)
            assert len({message.id for message in rest}) == acknowledged - 2
            assert next(message.attempts for message in rest if message.id == second.id) == 2
            await consumer.finish(rest)
            await eventually(lambda: _owes(api, (0, 0, 0)))
            (disk / "foreign").unlink()
            await eventually(lambda: _is_well(api))
            assert (await api.post("/pub?topic=t", b"after")).status == 200
            assert (await consumer.message()).body == b"after"
        assert node.stop() == 0


async def _owes(api: Api, expected: tuple[int, int, int]) -> bool:
    return await api.owes() == expected


@needs_root
async def test_a_disk_that_is_full_of_finished_messages(tmp_path: Path) -> None:
    """Nobody else frees any space: the node has to let go of what is finished although no checkpoint can be written."""
    with (
        _small_disk(tmp_path / "disk") as disk,
        Daemon("nsqd", "--max-bytes-per-file=200000", data_path=disk) as node,
    ):
        api = Api(node.http)
        await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        count = 0
        while (await api.post("/pub?topic=t", _BODY)).status == 200:
            count += 1
        _fill(disk / "foreign")
        node.kill()
        node.start()
        api = Api(node.http)
        async with await V2.consumer(node.tcp, 2000) as consumer:
            await consumer.finish(await consumer.messages(count))
            await eventually(lambda: _owes(api, (0, 0, 0)))
            await eventually(lambda: _is_well(api))


def _spoil_metadata(folder: Path) -> None:
    """Let the metadata be neither appended to nor written anew."""
    (folder / "pynsqd.meta.tmp").mkdir()
    (folder / "pynsqd.meta").rename(folder / "aside")


def _mend_metadata(folder: Path) -> None:
    (folder / "aside").rename(folder / "pynsqd.meta")
    (folder / "pynsqd.meta.tmp").rmdir()


async def test_a_topic_made_while_metadata_could_not_be_written(tmp_path: Path) -> None:
    """The node heals by itself: what it acknowledges afterwards is there after a kill."""
    with Daemon("nsqd", data_path=tmp_path) as node:
        _spoil_metadata(tmp_path)
        await Api(node.http).post("/topic/create?topic=t")
        _mend_metadata(tmp_path)
        await eventually(lambda: _is_well(Api(node.http)))
        assert (await Api(node.http).post("/pub?topic=t", b"acknowledged")).status == 200
        node.kill()
        node.start()
        await Api(node.http).do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        assert await Api(node.http).owes() == (1, 0, 0)


async def test_a_channel_made_while_metadata_could_not_be_written(tmp_path: Path) -> None:
    """What is published to it from then on is acknowledged, so a kill must not take it."""
    with Daemon("nsqd", data_path=tmp_path) as node:
        await Api(node.http).do("/topic/create?topic=t", "/channel/create?topic=t&channel=old")
        _spoil_metadata(tmp_path)
        await Api(node.http).do("/channel/create?topic=t&channel=c")
        assert (await Api(node.http).post("/pub?topic=t", b"acknowledged")).status == 200
        node.kill()
        _mend_metadata(tmp_path)
        node.start()
        assert await Api(node.http).owes() == (1, 0, 0)
        await Api(node.http).do("/channel/delete?topic=t&channel=c")
        node.kill()
        node.start()
        assert [one["channel_name"] for one in (await Api(node.http).topic())["channels"]] == ["old"]


async def test_where_metadata_could_be_written_they_alone_say_what_channels_there_are(tmp_path: Path) -> None:
    """Such as an older copy that somebody has put there (docs/tools.md); the checkpoint knows a channel more."""
    async with inside(tmp_path) as node:
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=old")
        copy = (tmp_path / "pynsqd.meta").read_bytes()
        await node.api.do("/channel/create?topic=t&channel=c")
    (tmp_path / "pynsqd.meta").write_bytes(copy)
    async with inside(tmp_path) as node:
        assert [one["channel_name"] for one in (await node.api.topic())["channels"]] == ["old"]


async def test_only_what_lasts_is_saved(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        _spoil_metadata(tmp_path)  # from here on saving shows
        await node.api.do("/topic/create?topic=t%23ephemeral", "/channel/create?topic=t%23ephemeral&channel=c")
        await node.api.do("/topic/delete?topic=t%23ephemeral")
        assert await node.api.ping() == (200, b"OK")
        await node.api.do("/topic/create?topic=t")
        assert (await node.api.ping())[0] == 500
        _mend_metadata(tmp_path)


async def test_unwritable_metadata_is_not_well(tmp_path: Path) -> None:
    """A topic whose name could not be saved is found again by its log, so an OK is true; but the node is not well."""
    (tmp_path / "pynsqd.meta.tmp").mkdir()
    async with inside(tmp_path) as node:
        assert (await node.api.post("/pub?topic=t", b"x")).status == 200
        assert (await node.api.ping())[0] == 500


async def test_a_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    """It makes the node unhealthy and costs duplicates, no messages; and it is written when it can be."""
    for number in (0, 1):
        (tmp_path / f"pynsqd.checkpoint.{number}").symlink_to(tmp_path / "missing" / "file")
    async with inside(tmp_path) as node:
        assert (await node.api.post("/pub?topic=t", b"x")).status == 200
        await eventually(lambda: _is_ill(node.api))
        (tmp_path / "missing").mkdir()
        await eventually((tmp_path / "missing" / "file").exists)
        await eventually(lambda: _is_well(node.api))


@pytest.mark.parametrize("between", [False, True], ids=["at once", "after a restart"])
async def test_a_topic_made_anew_that_no_checkpoint_knows(
    between: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint says of the deleted one that 20 messages were finished: not those of the new one."""

    def fail(checkpoint: Checkpoint, *, sync: bool = False) -> None:
        raise StorageError("write: input/output error")

    path = tmp_path / "first"
    path.mkdir()
    async with inside(path, checkpoint_interval_ns=10_000_000) as node:
        async with await V2.consumer(node.tcp, 100) as client:
            assert await client.ask(mpub(b"t", [b"old"] * 20)) == OK
            got = await client.messages(20)
            await eventually(lambda: owed_in_checkpoint(path) == 20)
            await client.finish(got)
            await eventually(lambda: owed_in_checkpoint(path) == 0)
            monkeypatch.setattr(Checkpoint, "write", fail)
            await node.api.do("/topic/delete?topic=t")
        if not between:
            await _publish_anew(node.api)
            shutil.copytree(path, tmp_path / "second")  # as it is after a kill -9
    if between:
        async with inside(path) as node:
            await _publish_anew(node.api)
            shutil.copytree(path, tmp_path / "second")
    async with inside(tmp_path / "second") as node, await V2.consumer(node.tcp, 100) as client:
        assert [one.body for one in await client.messages(4)] == [b"a", b"b", b"c", b"d"]
        await client.quiet(50)


async def _publish_anew(api: Api) -> None:
    await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
    for body in (b"a", b"b\nc", b"d"):
        assert (await api.post("/mpub?topic=t", body)).status == 200


async def _is_ill(api: Api) -> bool:
    return (await api.ping())[0] == 500
