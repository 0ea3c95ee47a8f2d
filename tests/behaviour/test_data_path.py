"""What a node leaves in its data path: for its owner only, and nowhere else, whatever topics are called."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api
from tests.support.wire import command

NAMES = [".", "..", "...", "-", "-rf", "_", "a" * 64, "." * 64, "t.log", "pynsqd.meta", "bad", "deferred", "CON"]


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The node has to see to the modes itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """Return what is not as narrow as it should be, and any link."""
    wrong = {}
    for path in folder.rglob("*"):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # the node has just done with it
            continue
        if stat.S_IMODE(mode) != (0o700 if stat.S_ISDIR(mode) else 0o600) or stat.S_ISLNK(mode):
            wrong[str(path.relative_to(folder))] = stat.filemode(mode)
    return wrong


async def fill(node: Daemon) -> None:
    """Publish to every name, now and for later, and consume from a channel that is called so too."""
    for name in NAMES:
        async with await V2.consumer(node.tcp, 1, topic=name, channel=name) as consumer:
            async with await V2.open(node.tcp) as publisher:
                assert await publisher.ask(command(f"PUB {name}".encode(), name.encode())) == OK
                assert await publisher.ask(command(f"DPUB {name} 600000".encode(), b"later")) == OK
            assert (await consumer.message()).body == name.encode()


async def test_all_that_is_made_is_its_owners_and_inside(tmp_path: Path) -> None:
    data = tmp_path / "outer" / "data"
    data.mkdir(parents=True, mode=0o700)
    beside = sorted(tmp_path.rglob("*"))
    with Daemon("nsqd", "--max-bytes-per-file=200", data_path=data) as node:
        await fill(node)
        assert modes(data) == {}
        assert node.stop() == 0
        damaged = next(data.glob("topics/*/*.seg"))
        damaged.write_bytes(b"\0" * 300)  # set aside at the start
        node.start()
        await fill(node)
        assert list(data.glob("topics/*/bad/*"))
        known = {topic["topic_name"] for topic in (await Api(node.http).stats())["topics"]}
        assert known == set(NAMES)
        assert modes(data) == {}
    assert [path for path in sorted(tmp_path.rglob("*")) if data not in path.parents] == beside
    assert len([path for path in (data / "topics").iterdir() if path.name != "removed"]) == len(NAMES)


async def test_deleting_a_name_takes_only_its_own_files(tmp_path: Path) -> None:
    with Daemon("nsqd", data_path=tmp_path) as node:
        await fill(node)
        before = {path.name for path in (tmp_path / "topics").iterdir()}
        for name in (".", "..", "..."):
            await Api(node.http).do(f"/topic/delete?topic={name}")
        after = {path.name for path in (tmp_path / "topics").iterdir()}
        assert before - after == {"..log", "...log", "....log"}
        assert (tmp_path / "pynsqd.meta").exists()
        for name in NAMES[3:]:
            assert (await Api(node.http).channel(name, name))["depth"] >= 0


@pytest.mark.parametrize("name", ["../t", "a/b", "/", "%2e%2e%2f", "a\0", "..\\t", "a" * 65, "", "t#ephemera"])
async def test_what_is_no_name_makes_nothing(name: str, tmp_path: Path) -> None:
    with Daemon("nsqd", data_path=tmp_path) as node:
        before = sorted(tmp_path.rglob("*"))
        async with await V2.open(node.tcp) as client:
            answer = await client.ask(command(b"PUB " + name.encode(), b"x"))
            assert answer.payload.startswith(b"E_BAD_TOPIC ")
        quoted = "".join(f"%{byte:02x}" for byte in name.encode())
        for path in ("/pub", "/topic/create", "/topic/delete"):
            assert (await Api(node.http).post(f"{path}?topic={quoted}", b"x")).status in (400, 404)
        assert sorted(tmp_path.rglob("*")) == before
