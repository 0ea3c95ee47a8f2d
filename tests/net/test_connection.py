"""The socket of one client."""

import json
import socket
import threading
from pathlib import Path

import anyio
import pytest

from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Inside, eventually, inside
from tests.support.wire import command


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    if request.param:
        pytest.importorskip("uvloop")
    return ("asyncio", {"use_uvloop": request.param})


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


@pytest.mark.parametrize("kind", ["publisher", "consumer"])
async def test_who_reads_nothing_is_not_listened_to_for_ever(kind: str, tmp_path: Path) -> None:
    """Replies are not piled up: reading stops, others go on, and the heartbeat rule closes."""
    line = command(b"PUB t", b"x") if kind == "publisher" else b"FIN 0123456789abcdef\n"
    async with inside(tmp_path, durability="memory") as node, await V2.open(node.tcp) as other:
        async with await V2.open(node.tcp) as stuck:
            if kind == "consumer":
                assert await stuck.ask(b"SUB t c\n") == OK
            body = json.dumps({"heartbeat_interval": 1000}).encode()
            if kind == "publisher":
                assert await stuck.ask(command(b"IDENTIFY", body)) == OK
            sent = 0
            chunk = line * 5000
            with anyio.move_on_after(20):
                while True:
                    with anyio.move_on_after(1) as blocked:
                        await stuck._stream.send(chunk)
                    if blocked.cancelled_caught:
                        break
                    sent += len(chunk)
            assert blocked.cancelled_caught
            assert sent < 60_000_000  # what the kernel takes for both sides, and little more
            assert await other.ask(command(b"PUB t", b"x")) == OK
            if kind == "publisher":
                await eventually(lambda: _clients(node, 1), "closed", 15)


async def _clients(node: Inside, count: int) -> bool:
    return len((await node.api.stats())["producers"] or ()) == count


async def test_who_reads_again_goes_on(tmp_path: Path) -> None:
    """Nothing is lost on the way."""
    async with inside(tmp_path) as node, await V2.open(node.tcp) as client:
        assert await client.ask(b"SUB t c\n") == OK
        line = b"FIN 0123456789abcdef\n"
        size = 8 + len((await client.ask(line)).payload)
        sent = 0
        blocked = anyio.CancelScope()
        while not blocked.cancelled_caught:
            with anyio.move_on_after(0.5) as blocked:
                await client._stream.send(line * 5000)
                sent += 5000
        got = 0
        while got < sent * size:
            with anyio.fail_after(10):
                got += len(await client._stream.receive())


@pytest.mark.parametrize("flood", [b"NOP\n" * 250_000, command(b"PUB flood", b"x") * 80_000], ids=["NOP", "PUB"])
def test_a_flood_does_not_keep_the_others_from_their_turn(flood: bytes, tmp_path: Path) -> None:
    """Another publisher is answered many times until the last command of the flood is."""
    with (
        Daemon("nsqd", data_path=tmp_path) as node,
        socket.create_connection(node.tcp, 30) as busy,
        socket.create_connection(node.tcp, 30) as other,
    ):
        over = threading.Event()

        def pour() -> None:
            busy.sendall(b"  V2" + flood * 8 + b"CLS\n")  # the last is an error: the end of the connection
            over.set()

        def drain() -> None:
            while busy.recv(1 << 20):
                pass

        threads = [threading.Thread(target=run) for run in (pour, drain)]
        other.sendall(b"  V2")
        for thread in threads:
            thread.start()
        answered = 0
        while not over.is_set():
            other.sendall(command(b"PUB t", b"x"))
            assert other.recv(100) == b"\0\0\0\x06\0\0\0\0OK"
            answered += 1
        for thread in threads:
            thread.join(30)
        assert answered >= 40
