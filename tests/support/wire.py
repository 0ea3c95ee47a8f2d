"""A raw client for both TCP protocols and for HTTP: bytes out, frames in, little understood.

Every wait has a deadline, so a broken server fails the test instead of hanging it.
"""

import os
import socket
import ssl
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import anyio
import cramjam
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

DEADLINE_S: Final = 30.0  # a bound on hanging, far above what a busy machine takes
RESPONSE, ERROR, MESSAGE = range(3)
_HEARTBEAT: Final = b"\0\0\0\x0f\0\0\0\0_heartbeat_"

Address = tuple[str, int] | str
"""``(host, port)``, or the path of a unix socket."""


class Frame(NamedTuple):
    """One V2 frame: its type (RESPONSE, ERROR or MESSAGE) and its payload."""

    type: int
    payload: bytes


@dataclass(frozen=True)
class Message:
    """The payload of a message frame (PROTOCOL 1.7)."""

    timestamp_ns: int
    attempts: int
    id: bytes
    body: bytes

    @classmethod
    def parse(cls, payload: bytes) -> "Message":
        """Cut a payload of at least 26 bytes into its fields."""
        timestamp_ns, attempts, message_id = struct.unpack_from(">qH16s", payload)
        return cls(timestamp_ns, attempts, message_id, payload[26:])


def command(line: bytes, body: bytes | None = None) -> bytes:
    """Return a command line with its newline and, if given, the size-prefixed body."""
    return line + b"\n" + (b"" if body is None else sized(body))


def mpub(topic: bytes, bodies: list[bytes]) -> bytes:
    """Return an MPUB command with a correct declared size."""
    return command(b"MPUB " + topic, struct.pack(">i", len(bodies)) + b"".join(map(sized, bodies)))


def sized(data: bytes) -> bytes:
    """Return ``data`` behind its length as an int32."""
    return struct.pack(">i", len(data)) + data


class WireClient:
    """One TCP connection. ``async with await WireClient.open(address) as client:`` closes it in the end."""

    def __init__(self, stream: ByteStream, deadline_s: float = DEADLINE_S) -> None:
        self._stream = stream
        self._deadline_s = deadline_s
        self._buffer = bytearray()
        self._compress: Callable[[bytes], bytes] = bytes
        self._decompress: Callable[[bytes], bytes] = bytes

    @classmethod
    async def open(cls, address: Address, magic: bytes = b"  V2", deadline_s: float = DEADLINE_S) -> Self:
        """Connect and send ``magic``; pass ``b""`` to send nothing, ``b"  V1"`` for lookupd."""
        with anyio.fail_after(deadline_s):
            stream = await (anyio.connect_unix(address) if isinstance(address, str) else anyio.connect_tcp(*address))
        client = cls(stream, deadline_s)
        try:
            if magic:
                await client.send(magic)
        except BaseException:
            await client.close()
            raise
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        await self.close()

    async def send(self, data: bytes) -> None:
        """Write ``data`` in one go."""
        await self.send_raw(self._compress(data))

    async def send_raw(self, data: bytes) -> None:
        """Write ``data`` as it is, past the compression."""
        with anyio.fail_after(self._deadline_s):
            await self._stream.send(data)

    async def response(self) -> bytes:
        """Read one length-prefixed block: a V1 response, or a whole V2 frame without its size."""
        with anyio.fail_after(self._deadline_s):
            (size,) = struct.unpack(">i", await self._exactly(4))
            assert 0 <= size <= 1 << 26, f"a frame of {size} bytes"
            return await self._exactly(size)

    async def frame(self) -> Frame:
        """Read one V2 frame."""
        block = await self.response()
        return Frame(int.from_bytes(block[:4], "big"), block[4:])

    async def message(self) -> Message:
        """Read one V2 frame, which has to be a message."""
        frame = await self.frame()
        assert frame.type == MESSAGE, frame
        return Message.parse(frame.payload)

    async def expect_closed(self, *, heartbeats: bool = False) -> None:
        """Wait until the server has closed; anything it still sends, save ``heartbeats``, is a failure."""
        with anyio.fail_after(self._deadline_s):
            while (not self._buffer or heartbeats) and await self._fill():
                pass
        rest = self._buffer.replace(_HEARTBEAT, b"") if heartbeats else self._buffer
        assert not rest, f"expected the end of the connection, got {bytes(rest)!r}"

    async def quiet(self, ms: float = 200) -> None:
        """Wait ``ms`` milliseconds; bytes or the end of the connection in that time are a failure."""
        with anyio.move_on_after(ms / 1000):
            while not self._buffer:
                assert await self._fill(), "expected silence, the server closed"
        assert not self._buffer, f"expected silence, got {bytes(self._buffer)!r}"

    async def drain(self) -> bytes:
        """Read until the server closes and return all of it."""
        with anyio.fail_after(self._deadline_s):
            while await self._fill():
                pass
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    async def shutdown_write(self) -> None:
        """Half-close: the server reads an end of file and can still answer."""
        await self._stream.send_eof()

    async def shutdown_write_raw(self) -> None:
        """Half-close the socket, whatever is spoken on it."""
        with socket.socket(fileno=os.dup(self._socket.fileno())) as same:  # uvloop's own cannot do it
            same.shutdown(socket.SHUT_WR)

    async def send_past_tls(self, data: bytes) -> None:
        """Write to the socket itself; not to be mixed with other writes that wait."""
        os.write(self._socket.fileno(), data)

    async def some(self) -> bytes:
        """Return what has come, and wait for something if that is nothing."""
        with anyio.fail_after(self._deadline_s):
            assert self._buffer or await self._fill(), "the server closed"
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken

    @property
    def _socket(self) -> Any:
        return self._stream.extra(SocketAttribute.raw_socket)

    async def close(self) -> None:
        """Close without waiting for anything."""
        await self._stream.aclose()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on; raises ssl.SSLError if the handshake fails."""
        with anyio.fail_after(self._deadline_s):
            self._stream = await TLSStream.wrap(
                self._stream, server_side=False, hostname="localhost", ssl_context=context, standard_compatible=False
            )

    def peer_certificate(self) -> dict[str, Any]:
        """Return what the server has shown in TLS, as ssl gives it."""
        shown: dict[str, Any] = self._stream.extra(TLSAttribute.peer_certificate)
        return shown

    def start_deflate(self, level: int = 6) -> None:
        """Speak raw deflate from here on."""
        deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._compress = lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
        self._decompress = zlib.decompressobj(-zlib.MAX_WBITS).decompress
        self._buffer[:] = self._decompress(bytes(self._buffer))

    def start_snappy(self) -> None:
        """Speak snappy's framing format from here on, with a stream identifier in front of each send, as pynsq has."""
        self._compress = lambda data: bytes(cramjam.snappy.compress(data))
        self._decompress = _Unsnappy()
        self._buffer[:] = self._decompress(bytes(self._buffer))

    async def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            assert await self._fill(), f"the server closed after {bytes(self._buffer)!r}"
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    async def _fill(self) -> bool:
        """Read what there is; False at the end. A reset is an end too: unread input turns a close into one."""
        try:
            data = await self._stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return False
        self._buffer += self._decompress(data)
        return True


class _Unsnappy:
    """Decodes the chunks that are complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._identifier = b""

    def __call__(self, data: bytes) -> bytes:
        data = self._rest + data
        whole = 0
        while len(data) - whole >= 4 and len(data) - whole >= 4 + int.from_bytes(data[whole + 1 : whole + 4], "little"):
            whole += 4 + int.from_bytes(data[whole + 1 : whole + 4], "little")
        chunks, self._rest = data[:whole], data[whole:]
        if chunks and not self._identifier:
            self._identifier = chunks[:10]
            assert self._identifier == b"\xff\x06\0\0sNaPpY"
            chunks = chunks[10:]
        return bytes(cramjam.snappy.decompress(self._identifier + chunks)) if chunks else b""


@dataclass(frozen=True)
class HttpAnswer:
    """One HTTP response; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def http(
    address: Address,
    request: str,
    body: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    deadline_s: float = DEADLINE_S,
) -> HttpAnswer:
    """Send ``request``, such as "POST /pub?topic=t", on a connection of its own and read the answer to its end.

    Nothing is added to ``headers`` but Host and Connection, so a body needs its Content-Length from the caller. Fails
    if the answer says another length than it has. Raises EndOfStream if there is none.
    """
    async with await WireClient.open(address, b"", deadline_s) as client:
        if tls is not None:
            await client.start_tls(tls)
        lines = {"Host": "127.0.0.1", "Connection": "close"} | (headers or {})
        head = "".join(f"{line}\r\n" for line in [f"{request} HTTP/1.1", *map(": ".join, lines.items()), ""])
        await client.send(head.encode("latin-1") + body)
        raw = await client.drain()
    if b"\r\n\r\n" not in raw:
        raise anyio.EndOfStream
    head_bytes, _, payload = raw.partition(b"\r\n\r\n")
    status, *fields = head_bytes.decode("latin-1").split("\r\n")
    answer = {name.lower(): value for name, value in (line.split(": ", 1) for line in fields)}
    if answer.get("transfer-encoding") == "chunked":
        payload = _unchunk(payload)
    elif not request.startswith("HEAD "):
        assert int(answer["content-length"]) == len(payload), f"not {answer['content-length']} bytes: {raw!r}"
    return HttpAnswer(int(status.split()[1]), answer, payload)


def _unchunk(payload: bytes) -> bytes:
    parts = []
    while payload:
        size, _, payload = payload.partition(b"\r\n")
        parts.append(payload[: int(size, 16)])
        payload = payload[int(size, 16) + 2 :]
    return b"".join(parts)
