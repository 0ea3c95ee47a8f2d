"""A topic is deleted while the disk takes its time over it: nobody waits, and it is gone, whatever happens next."""

import sys
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, is_reference
from tests.support.failing_files import FailingFiles
from tests.support.nodes import OK, V2, Api, eventually, inside
from tests.support.wire import Address, command, mpub

_SEGMENT = 20_000
_BODIES = [b"x" * 1000] * 50
_WITHOUT_UNLINK = """
import sys, threading
from pynsqd.cli import main
from pynsqd.storage import files
files.unlink = lambda path: threading.Event().wait()
sys.exit(main(prog="pynsqd"))
"""


class _NeverUnlinks(Daemon):
    """A node whose disk never ends to unlink a file."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", _WITHOUT_UNLINK, *super().command()[3:]]


async def _fill(tcp: Address, api: Api) -> None:
    """Have a topic of some files, deferred messages too."""
    await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
    async with await V2.open(tcp) as publisher:
        for _ in range(3):
            assert await publisher.ask(mpub(b"t", _BODIES)) == OK
        assert await publisher.ask(command(b"DPUB t 600000", b"later")) == OK


async def test_nobody_waits_for_the_files_of_a_deleted_topic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FailingFiles(monkeypatch)
    removed = tmp_path / "topics" / "removed"
    async with inside(tmp_path, max_bytes_per_file=_SEGMENT) as node:
        await _fill(node.tcp, node.api)
        go_on = disk.hold("unlink")
        try:
            await node.api.do("/topic/delete?topic=t")
            await eventually(lambda: disk.calls["unlink"])
            assert [path.name for path in (tmp_path / "topics").iterdir()] == ["removed"]
            async with await V2.consumer(node.tcp, 1) as consumer, await V2.open(node.tcp) as publisher:
                assert await publisher.ask(command(b"PUB t", b"new")) == OK
                assert (await consumer.message()).body == b"new"
            assert list(removed.iterdir())
        finally:
            go_on.set()
        await eventually(lambda: not list(removed.iterdir()))
        await eventually(lambda: _owes(node.api, (1, 0, 0)))  # the consumer has left without a FIN


async def _owes(api: Api, expected: tuple[int, int, int]) -> bool:
    return await api.owes() == expected


@pytest.mark.skipif(is_reference(), reason="files of ours")
async def test_a_deleted_topic_does_not_come_back_after_a_kill(tmp_path: Path) -> None:
    removed = tmp_path / "topics" / "removed"
    with _NeverUnlinks("nsqd", f"--max-bytes-per-file={_SEGMENT}", data_path=tmp_path) as node:
        api = Api(node.http)
        await _fill(node.tcp, api)
        await api.do("/topic/delete?topic=t", "/topic/create?topic=other")
        assert list(removed.iterdir())
    with Daemon("nsqd", data_path=tmp_path) as node:
        api = Api(node.http)
        assert [one["topic_name"] for one in (await api.stats())["topics"]] == ["other"]
        await eventually(lambda: not list(removed.iterdir()))
        await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        assert await api.owes() == (0, 0, 0)
        assert node.stop() == 0
    assert "removed" not in node.stderr
