"""The socket of one client."""

from pathlib import Path

from tests.support.nodes import OK, V2, inside
from tests.support.wire import command


async def test_pipelined_commands_and_half_close(tmp_path: Path) -> None:
    """Every byte that was sent before the end of file is answered, however it was cut, then the node closes."""
    async with inside(tmp_path) as node, await V2.open(node.tcp) as client:
        data = command(b"PUB t", b"one") * 3
        for at in range(0, len(data), 7):
            await client.send(data[at : at + 7])
        await client.shutdown_write()
        assert [await client.frame() for _ in range(3)] == [OK] * 3
        await client.expect_closed()
        assert (await node.api.topic())["depth"] == 3
