"""The socket of one client."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, time_ns

import anyio
import anyio.lowlevel
import pytest

from pynsqd.core.broker import Broker
from pynsqd.net.connection import Connection
from pynsqd.net.door import Door
from pynsqd.net.turn import RECEIVE_BUFFER, Turn
from pynsqd.options import Options
from tests.support.memory_logs import MemoryLogs
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
            body = json.dumps({"heartbeat_interval": 2000}).encode()
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
                await eventually(lambda: _clients(node, 1), "closed")


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
            with anyio.fail_after(30):
                got += len(await client._stream.receive())


class _Transport(asyncio.Transport):
    """Notes what becomes of reading."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.unwritten = 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("10.0.0.1", 5)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing."""

    def get_write_buffer_size(self) -> int:
        return self.unwritten

    def write(self, data: object) -> None:
        """Nothing."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def _read(connection: Connection, turn: Turn, data: bytes) -> None:
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


@pytest.mark.parametrize("held_by", ["nobody", "the session", "what is unread"])
async def test_a_flood_does_not_keep_the_others_from_their_turn(held_by: str) -> None:
    """After a read that was full there may be more: it is not read before the turn has ended."""
    broker = Broker(Options(), MemoryLogs(), monotonic_ns(), time_ns())
    turn = Turn(broker, lambda _: None)
    connection = Connection(turn, Door("TCP", 0, b"", lambda *_, **__: None))
    transport = _Transport()
    connection.connection_made(transport)
    _read(connection, turn, b"  V2" + b"NOP\n" * 10)
    assert transport.reading
    _read(connection, turn, b"NOP\n" * (RECEIVE_BUFFER // 4))
    assert not transport.reading
    if held_by == "the session":
        connection.pause_reading()
    elif held_by == "what is unread":
        transport.unwritten = 2 << 20
        connection.pause_writing()
    await turn.committed()
    await anyio.lowlevel.checkpoint()
    assert transport.reading == (held_by == "nobody")
    if held_by == "the session":
        connection.resume_reading()
    elif held_by == "what is unread":
        connection.resume_writing()
    assert transport.reading
    turn.close()


async def test_a_peer_that_reads_now_and_then_is_looked_at_once_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it stops reading, one timer tells how much it has left unread."""
    turn = Turn(Broker(Options(), MemoryLogs(), monotonic_ns(), time_ns()), lambda _: None)
    looks: list[Callable[[], None]] = []
    monkeypatch.setattr(turn, "later", lambda _, look: looks.append(look))
    connection = Connection(turn, Door("TCP", 0, b"", lambda *_, **__: None))
    transport = _Transport()
    connection.connection_made(transport)
    for _ in range(3):
        connection.pause_writing()
        connection.resume_writing()
    connection.pause_writing()
    assert len(looks) == 1
    looks.pop()()
    assert len(looks) == 1, "it is still stuck"
    transport.unwritten = 2 << 20
    looks.pop()()
    assert (looks, transport.reading) == ([], False)
    connection.resume_writing()
    transport.unwritten = 0
    connection.pause_writing()
    assert (len(looks), transport.reading) == (1, True)
    turn.close()
