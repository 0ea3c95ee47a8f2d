"""The node as a whole: how it starts and stops."""

from pathlib import Path

import pytest

from pynsqd.wire.errors import StartupError
from tests.support.nodes import OK, V2, inside
from tests.support.wire import command


async def test_its_end_closes_connections_and_frees_the_folder(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        client = await V2.open(node.tcp)
        assert await client.ask(command(b"PUB t", b"x")) == OK
    await client.expect_closed()
    await client.close()
    async with inside(tmp_path) as node:
        assert (await node.api.topic())["depth"] == 1


async def test_a_refused_start_frees_the_folder(tmp_path: Path) -> None:
    (tmp_path / "pynsqd.meta").write_bytes(b"?")
    for _ in range(2):
        with pytest.raises((StartupError, ExceptionGroup), match="metadata"):
            async with inside(tmp_path):
                pass
    (tmp_path / "pynsqd.meta").unlink()
    async with inside(tmp_path) as node:
        assert await node.api.ping() == (200, b"OK")
