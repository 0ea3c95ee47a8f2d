"""GET /livez and /readyz of a whole node."""

import os
import threading
from pathlib import Path

import anyio
import pytest

from pynsqd.net import write_probe
from pynsqd.storage import files
from tests.support.failing_files import FailingFiles
from tests.support.nodes import Api, eventually, inside
from tests.support.wire import http


async def probe(api: Api, path: str) -> tuple[int, bytes]:
    answer = await http(api.address, f"GET {path}")
    return answer.status, answer.body


async def test_a_node_that_is_well(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        assert await probe(node.api, "/livez") == (200, b"OK")
        assert await probe(node.api, "/readyz") == (200, b"OK")
        assert not (tmp_path / "pynsqd.probe").exists()


async def test_a_full_disk_is_not_ready_before_anything_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_probe, "_FRESH_S", 0.0)
    async with inside(tmp_path) as node:
        FailingFiles(monkeypatch).full_after(0)
        status, body = await probe(node.api, "/readyz")
        assert status == 503
        assert body.startswith(b"NOK - write ") and body.endswith(b"no space left on device")
        assert await probe(node.api, "/livez") == (200, b"OK")
        monkeypatch.undo()
        assert await eventually(lambda: _is_ready(node.api))


async def _is_ready(api: Api) -> bool:
    return (await probe(api, "/readyz"))[0] == 200


async def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the loop, not the probes that follow, of which there are no more threads, and not the end of the node."""
    released, hanging = threading.Event(), []

    def hang(descriptor: int) -> None:
        hanging.append(descriptor)
        released.wait(60)
        os.fdatasync(descriptor)

    monkeypatch.setattr(write_probe, "_TIMEOUT_S", 0.2)
    monkeypatch.setattr(write_probe, "_FRESH_S", 0.0)
    async with inside(tmp_path) as node:
        monkeypatch.setattr(files, "fdatasync", hang)
        for _ in range(3):
            status, body = await probe(node.api, "/readyz")
            assert (status, body[:12]) == (503, b"NOK - write ")
            assert b"no answer for " in body
        assert await probe(node.api, "/livez") == (200, b"OK")
        assert (await node.api.post("/pub?topic=t", b"x")).status == 200
        assert len(hanging) == 1
        assert sum(thread.name == "write probe" for thread in threading.enumerate()) == 1
        monkeypatch.setattr(files, "fdatasync", os.fdatasync)
        with anyio.fail_after(30):
            released.set()
            await eventually(lambda: _is_ready(node.api))


async def test_many_probes_are_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "_FRESH_S", 3600.0)
    async with inside(tmp_path) as node:
        failing = FailingFiles(monkeypatch)
        before = failing.calls["fdatasync"]
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(probe, node.api, "/readyz")
        assert failing.calls["fdatasync"] - before == 1


async def test_what_is_known_to_fail_is_not_ready(tmp_path: Path) -> None:
    """A topic's log can fail where the data path does not."""
    async with inside(tmp_path) as node:
        await node.api.do("/topic/create?topic=t")
        (tmp_path / "topics").mkdir(exist_ok=True)
        (tmp_path / "topics" / "t.log").write_bytes(b"in the way")
        assert (await node.api.post("/pub?topic=t", b"x")).status == 503
        status, body = await probe(node.api, "/readyz")
        assert (status, body[:4]) == (503, b"NOK ")
        (tmp_path / "topics" / "t.log").unlink()
