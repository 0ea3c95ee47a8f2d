"""One full read, then the others; and what those above want counts too."""

import asyncio
from time import monotonic_ns, time_ns
from typing import Any

import anyio.lowlevel
import pytest

from pynsqd.core.broker import Broker
from pynsqd.net.layers.intake import Intake
from pynsqd.net.turn import RECEIVE_BUFFER, Turn
from pynsqd.options import Options
from tests.support.memory_logs import MemoryLogs


class Socket(asyncio.Transport):
    """Notes what becomes of reading."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closing = False
        self.written: list[Any] = []

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closing
        self.reading = True

    def write(self, data: Any) -> None:
        self.written.append(data)


class Above(asyncio.Protocol):
    """Notes what comes."""

    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.received: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received.append(data)


def _standing() -> tuple[Turn, Intake, Socket, Above]:
    turn = Turn(Broker(Options(), MemoryLogs(), monotonic_ns(), time_ns()), lambda _: None)
    socket, above = Socket(), Above()
    intake = Intake(turn, above)
    intake.connection_made(socket)
    assert above.transport is intake
    return turn, intake, socket, above


def _read(intake: Intake, data: bytes) -> None:
    intake.get_buffer(-1)[: len(data)] = data
    intake.buffer_updated(len(data))


async def _end_turn(turn: Turn) -> None:
    await turn.committed()
    await anyio.lowlevel.checkpoint()


FULL = b"x" * RECEIVE_BUFFER


async def test_a_read_that_was_not_full_was_all_there_is() -> None:
    turn, intake, socket, above = _standing()
    _read(intake, FULL[1:])
    _read(intake, b"y")
    assert (above.received, socket.reading) == ([FULL[1:], b"y"], True)
    turn.close()


@pytest.mark.parametrize("wanted", ["at once", "later", "meanwhile not"])
async def test_after_a_full_read_the_others_have_their_turn(wanted: str) -> None:
    turn, intake, socket, above = _standing()
    _read(intake, FULL)
    assert (above.received, socket.reading) == ([FULL], False)
    if wanted != "at once":
        intake.pause_reading()
    if wanted == "meanwhile not":
        intake.resume_reading()
        assert not socket.reading
    await _end_turn(turn)
    assert socket.reading == (wanted != "later")
    intake.resume_reading()
    assert socket.reading
    turn.close()


async def test_nothing_more_is_read_of_what_is_closed() -> None:
    turn, intake, socket, _ = _standing()
    _read(intake, FULL)
    socket.closing = True
    await _end_turn(turn)
    assert not socket.reading
    turn.close()


async def test_what_is_written_passes() -> None:
    turn, intake, socket, _ = _standing()
    intake.write(b"x")
    assert socket.written == [b"x"]
    turn.close()
