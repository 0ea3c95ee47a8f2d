"""What layers owe to the rest of the node: small pieces, small buffers, order. On a transport that only notes."""

import asyncio
import zlib
from typing import Any

import anyio.lowlevel
import pytest

from pynsqd.core.security import Security
from pynsqd.net.layers.codecs import Deflate
from pynsqd.net.layers.compression import PIECE, CompressionLayer
from pynsqd.net.layers.tls import TlsLayer
from pynsqd.net.turn import RECEIVE_BUFFER

SLICE = 1 << 16


class Socket(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.closing = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


class Above(asyncio.Protocol):
    """Notes what comes."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.ended = False

    def data_received(self, data: bytes) -> None:
        assert not self.ended
        self.received.append(data)

    def eof_received(self) -> bool:
        self.ended = True
        return True


class NullEngine:
    """TLS without encryption, which notes how much it is given at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._in = self._out = b""

    def feed(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self._in += data

    def handshake(self) -> bool:
        return True

    def read(self) -> tuple[bytes, bool]:
        data, self._in = self._in, b""
        return data, False

    def write(self, data: Any) -> None:
        self.sizes.append(len(data))
        self._out += bytes(data)

    def take(self) -> bytes:
        data, self._out = self._out, b""
        return data

    def shut_down(self) -> None:
        self._out += b"goodbye"

    def security(self) -> Security:
        return Security("", "")


def compressing(slack: int = 0) -> tuple[CompressionLayer, Socket, Above, list[str]]:
    socket, above, refusals = Socket(), Above(), list[str]()
    layer = CompressionLayer(socket, above, Deflate(6), slack, lambda: refusals.append("refused"))
    return layer, socket, above, refusals


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)


def test_a_piece_is_no_more_than_a_read() -> None:
    assert PIECE <= RECEIVE_BUFFER


async def test_one_piece_a_turn_and_nothing_is_read_meanwhile() -> None:
    layer, socket, above, _ = compressing(slack=10 * PIECE)
    layer.data_received(deflated(bytes(3 * PIECE + 1)))
    for pieces in (1, 2, 3):
        assert [len(data) for data in above.received] == [PIECE] * pieces
        assert not socket.reading
        await anyio.lowlevel.cancel_shielded_checkpoint()
    assert [len(data) for data in above.received] == [PIECE] * 3 + [1]
    assert socket.reading


async def test_the_end_comes_after_what_was_sent_before_it() -> None:
    layer, _, above, _ = compressing(slack=10 * PIECE)
    layer.data_received(deflated(bytes(2 * PIECE)))
    assert layer.eof_received()
    assert not above.ended
    while not above.ended:
        await anyio.lowlevel.cancel_shielded_checkpoint()
    assert sum(map(len, above.received)) == 2 * PIECE


async def test_each_read_has_its_allowance() -> None:
    layer, socket, above, refusals = compressing(slack=PIECE)
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    for _ in range(5):
        layer.data_received(stream.compress(bytes(PIECE)) + stream.flush(zlib.Z_SYNC_FLUSH))
        while not socket.reading:
            await anyio.lowlevel.cancel_shielded_checkpoint()
    assert (sum(map(len, above.received)), refusals) == (5 * PIECE, [])
    layer.data_received(stream.compress(bytes(3 * PIECE)) + stream.flush(zlib.Z_SYNC_FLUSH))
    while not refusals:
        await anyio.lowlevel.cancel_shielded_checkpoint()
    layer.data_received(b"whatever")
    assert refusals == ["refused"]


async def test_a_layer_that_closes_stops_decoding() -> None:
    layer, socket, above, _ = compressing(slack=10 * PIECE)
    layer.data_received(deflated(bytes(5 * PIECE)))
    socket.close()
    for _ in range(5):
        await anyio.lowlevel.cancel_shielded_checkpoint()
    assert len(above.received) == 1
    assert not socket.reading


@pytest.mark.parametrize("size", [1, SLICE, SLICE + 1, 5 * SLICE])
async def test_tls_gets_slices_and_the_socket_one_write(size: int) -> None:
    """The buffers of OpenSSL stay as large as the most they ever held."""
    engine, socket, above = NullEngine(), Socket(), Above()
    layer = TlsLayer(engine, lambda _: None, lambda _: None)
    layer.set_protocol(above)
    layer.connection_made(socket)
    layer.data_received(b"\x16\x03\x01\x00\x05")
    above.received.clear()
    data = bytes(range(256)) * (size // 256 + 1)
    layer.write(data[:size])
    assert socket.written == [data[:size]]
    layer.data_received(data[:size])
    assert above.received == [data[:size]]
    assert max(engine.sizes) <= SLICE


async def test_tls_says_goodbye_once_it_has_said_hello() -> None:
    for hello, said in ((b"", []), (b"\x16\x03\x01\x00\x05", [b"goodbye"])):
        socket = Socket()
        layer = TlsLayer(NullEngine(), lambda _: None, lambda _: None)
        layer.connection_made(socket)
        layer.data_received(hello)
        layer.close()
        assert (socket.written, socket.closing) == (said, True)
        layer.connection_lost(None)


async def test_who_wants_no_more_gets_no_more() -> None:
    """A session that waits for an auth server pauses in the middle of what one read has decoded to."""
    layer, socket, above, _ = compressing(slack=10 * PIECE)
    layer.data_received(deflated(bytes(2 * PIECE)))
    layer.pause_reading()
    for _ in range(3):
        await anyio.lowlevel.cancel_shielded_checkpoint()
    assert (len(above.received), socket.reading) == (1, False)
    layer.resume_reading()
    assert not socket.reading, "there is more of the last read"
    for _ in range(3):
        await anyio.lowlevel.cancel_shielded_checkpoint()
    assert (sum(map(len, above.received)), socket.reading) == (2 * PIECE, True)


async def test_what_comes_in_spite_of_a_pause_is_kept_in_order() -> None:
    layer, _, above, _ = compressing()
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    layer.pause_reading()
    for data in (b"one", b"two"):
        layer.data_received(stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))
    assert above.received == []
    layer.resume_reading()
    await anyio.lowlevel.cancel_shielded_checkpoint()
    assert b"".join(above.received) == b"onetwo"
