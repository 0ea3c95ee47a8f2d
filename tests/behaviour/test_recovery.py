"""Files that are missing, damaged, foreign or of a later release: what is whole is served, nothing is guessed (P7)."""

import errno
import os
import subprocess
from binascii import crc32
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from pynsqd.storage import files
from pynsqd.storage.checkpoint import _HEAD, _pack_head
from pynsqd.storage.format import VERSION
from pynsqd.storage.log_store import LogStore
from pynsqd.wire.errors import StartupError
from tests.support.batches import Batches, broken
from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, eventually, inside, owed_in_checkpoint
from tests.support.wire import mpub

_FOLDER = "topics/t.log"
_BATCHES = [[b"%d-%d" % (batch, number) for number in range(3)] for batch in range(3)]


async def _fill(folder: Path) -> None:
    """Leave three batches of three, of which the first was finished."""
    async with inside(folder) as node:
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        async with await V2.consumer(node.tcp, 3) as client:
            for bodies in _BATCHES:
                assert await client.ask(mpub(b"t", bodies)) == OK
                if bodies == _BATCHES[0]:
                    await client.send(b"RDY 0\n")
                    await client.finish(await client.messages(3))
            await eventually((folder / "pynsqd.checkpoint.1").exists)  # the end of the node writes the other one


async def _served(folder: Path, count: int) -> list[bytes]:
    async with inside(folder) as node:
        assert (await node.api.owes())[0] == count
        async with await V2.consumer(node.tcp, 100) as client:
            return sorted([message.body for message in await client.messages(count)])


def _segment(folder: Path) -> Path:
    (path,) = (folder / _FOLDER).glob("*.seg")
    return path


_ALL = sorted(body for batch in _BATCHES for body in batch)
_LEFT = sorted(body for batch in _BATCHES[1:] for body in batch)


async def test_untouched(tmp_path: Path) -> None:
    await _fill(tmp_path)
    assert await _served(tmp_path, 6) == _LEFT


async def test_missing_checkpoints(tmp_path: Path) -> None:
    """Everything that is in the log comes again; nothing is lost."""
    await _fill(tmp_path)
    for path in tmp_path.glob("pynsqd.checkpoint.*"):
        path.unlink()
    assert await _served(tmp_path, 9) == _ALL


@pytest.mark.parametrize("region", ["magic", "generation", "length", "checksum", "body", "empty", "cut"])
async def test_damaged_checkpoints(region: str, tmp_path: Path) -> None:
    """Of both files, or only of the newer one: whatever still stands is used, and what is left is delivered."""
    await _fill(tmp_path)
    paths = sorted(tmp_path.glob("pynsqd.checkpoint.*"))
    assert len(paths) == 2
    offsets = {"magic": 0, "generation": 15, "length": 19, "checksum": 23, "body": 40}
    for path in paths:
        raw = bytearray(path.read_bytes())
        if region == "empty":
            raw.clear()
        elif region == "cut":
            del raw[-1:]
        else:
            raw[offsets[region]] ^= 1
        path.write_bytes(raw)
    async with inside(tmp_path) as node:
        waiting = (await node.api.owes())[0]
        assert 6 <= waiting <= 9
        async with await V2.consumer(node.tcp, 100) as client:
            got = [message.body for message in await client.messages(waiting)]
            assert set(_LEFT) <= set(got)


async def test_a_flipped_bit_in_the_version_of_a_checkpoint(tmp_path: Path) -> None:
    await _fill(tmp_path)
    for path in tmp_path.glob("pynsqd.checkpoint.*"):
        raw = bytearray(path.read_bytes())
        raw[7] ^= 2
        path.write_bytes(raw)
    assert await _served(tmp_path, 9) == _ALL


async def test_a_damaged_batch(tmp_path: Path) -> None:
    """The rest is served; the damage is counted, logged and set aside."""
    await _fill(tmp_path)
    path = _segment(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"1-1")] ^= 1
    path.write_bytes(raw)
    async with inside(tmp_path) as node:
        async with await V2.consumer(node.tcp, 100) as client:
            assert sorted([message.body for message in await client.messages(3)]) == _BATCHES[2]
        shown = await node.api.storage()
        assert shown["damaged_records"] == 1
        assert shown["damaged_bytes"] > 3 * 5
        assert node.logged("wrong checksum; set aside as ")
        (aside,) = (tmp_path / _FOLDER / "bad").iterdir()
        assert b"1-2" in aside.read_bytes()
        assert len(aside.read_bytes()) == shown["damaged_bytes"]


@pytest.mark.parametrize("mem_queue_size", [1, 100], ids=["read at once", "in memory"])
@pytest.mark.parametrize("finished", [2, 4, 7])
async def test_a_batch_that_is_damaged_once_it_was_delivered(
    finished: int, mem_queue_size: int, tmp_path: Path
) -> None:
    """No message of another batch is left out in place of those that were finished."""
    async with inside(tmp_path, mem_queue_size=mem_queue_size) as node:
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        async with await V2.consumer(node.tcp, 0) as client:
            for bodies in _BATCHES:
                assert await client.ask(mpub(b"t", bodies)) == OK
            await client.send(b"RDY %d\n" % finished)
            got = await client.messages(finished)
            await client.send(b"RDY 0\n")
            await client.finish(got)
            await eventually(lambda: owed_in_checkpoint(tmp_path) == 0)
    path = _segment(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"%d-1" % ((finished - 1) // 3))] ^= 1
    path.write_bytes(raw)
    left = _ALL[-(-finished // 3) * 3 :]
    async with inside(tmp_path, mem_queue_size=mem_queue_size) as node:
        async with await V2.consumer(node.tcp, 100) as client:
            assert sorted([message.body for message in await client.messages(len(left))]) == left
            await client.quiet(50)


@pytest.mark.parametrize("size", [20, 20_000])
async def test_a_batch_of_other_messages_than_it_says(size: int, tmp_path: Path) -> None:
    """Its checksum is right. No connection dies of it, and what is behind it is served."""
    await _fill(tmp_path)
    log = LogStore(tmp_path, 1 << 20, lambda *_: None).open("t")
    log.append(broken(Batches().of([b"x" * size] * 3), 4))
    log.append(Batches().of([b"behind"]))
    log.close()
    async with inside(tmp_path) as node:
        async with await V2.consumer(node.tcp, 100) as client:
            assert sorted([message.body for message in await client.messages(7)]) == [*_LEFT, b"behind"]
        assert (await node.api.storage())["damaged_records"] == 1
        assert node.logged("sizes do not add up; set aside as ")


async def test_foreign_files(tmp_path: Path) -> None:
    await _fill(tmp_path)
    strangers = [tmp_path / "notes", tmp_path / "topics" / "x.log.bak", tmp_path / _FOLDER / "0.seg~"]
    for path in strangers:
        path.write_bytes(b"mine")
    assert await _served(tmp_path, 6) == _LEFT
    assert [path.read_bytes() for path in strangers] == [b"mine"] * 3


async def test_a_log_that_cannot_be_read_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing works, so the probe sees nothing: it is tried again by itself, and not complained about every second."""
    async with inside(tmp_path, mem_queue_size=1) as node:
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        for number in range(3):
            assert (await node.api.post("/pub?topic=t", b"%d" % number)).status == 200
        failed: list[int] = []

        def failing(_descriptor: int, _size: int, _offset: int) -> bytes:
            failed.append(1)
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(files, "pread", failing)
        async with await V2.consumer(node.tcp, 100) as client:
            assert (await client.message()).body == b"0"
            await eventually(lambda: len(failed) >= 4)
            assert [str(line).count("storage failed") for line in node.logs.lines].count(1) == 1
            assert not node.logged("storage works again")
            monkeypatch.setattr(files, "pread", os.pread)
            assert [message.body for message in await client.messages(2)] == [b"1", b"2"]
            await eventually(lambda: node.logged("storage works again"))
            assert (await node.api.ping())[0] == 200


# -- starts that are refused -----------------------------------------------------------------------------------------


def _newer_segment(folder: Path) -> None:
    raw = bytearray(_segment(folder).read_bytes())
    raw[6:8] = (VERSION + 1).to_bytes(2, "big")
    raw[28:32] = crc32(raw[:28]).to_bytes(4, "big")
    _segment(folder).write_bytes(raw)


def _newer_checkpoint(folder: Path) -> None:
    path = folder / "pynsqd.checkpoint.0"
    body = path.read_bytes()[_HEAD.size :]
    path.write_bytes(_pack_head(2, 1 << 40, body) + body)


def _newer_metadata(folder: Path) -> None:
    path = folder / "pynsqd.meta"
    path.write_bytes(msgpack.packb(msgpack.unpackb(path.read_bytes()) | {"version": 2}))


def _bad_metadata(folder: Path) -> None:
    (folder / "pynsqd.meta").write_bytes(b"\x93what is this")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_newer_segment, "failed to open topic log - {}/topics/t.log/"),
        (_newer_checkpoint, "failed to load checkpoint - {}/pynsqd.checkpoint.0 is of version 2, this is version 1"),
        (_newer_metadata, "failed to load metadata - {}/pynsqd.meta is of version 2, this is version 1"),
        (_bad_metadata, "failed to load metadata - failed to parse metadata in {}/pynsqd.meta"),
    ],
)
async def test_start_refused(spoil: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    """With a line that names the file; not a byte is touched."""
    await _fill(tmp_path)
    spoil(tmp_path)
    before = _tree(tmp_path)
    with pytest.raises((StartupError, ExceptionGroup)) as refused:
        async with inside(tmp_path):
            pass
    group = refused.value
    error = group if isinstance(group, StartupError) else group.exceptions[0]  # type: ignore[attr-defined]
    assert str(error).startswith(said.format(tmp_path))
    assert _tree(tmp_path) == before


def _tree(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


async def test_refused_start_of_the_program(tmp_path: Path) -> None:
    """One line on stderr, exit code 1. A second node on the same path is refused, too, and the first goes on."""
    async with inside(tmp_path) as node:
        second = Daemon("nsqd", data_path=tmp_path)
        run = subprocess.run(second.command(), capture_output=True, text=True, timeout=90, check=False)
        assert run.returncode == 1
        assert "possibly in use by another instance" in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1, run.stderr
        assert await eventually(node.api.ping) == (200, b"OK")
