"""A raw HTTP client: the bytes of a request out, the answers in, nothing added and nothing hidden."""

from dataclasses import dataclass
from typing import Self

import anyio
from anyio.abc import SocketStream

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Answer:
    """One response; the names of headers are in lower case."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    def same(self) -> tuple[object, ...]:
        """Return what two paths have to agree on: everything but the time."""
        return (self.version, self.status, {**self.headers, "date": ""}, self.body)


def request(line: str, body: bytes | None = None, *headers: str) -> bytes:
    """Return an HTTP/1.1 request, with a Content-Length if there is a body."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join((f"{line} HTTP/1.1", "Host: node", *length, *headers, "", "")).encode() + (body or b"")


class HttpClient:
    """One connection. ``async with await HttpClient.open(port) as client:`` closes it in the end."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._buffer = b""
        self.reset = False  # the server closed without having read everything, which can cost answers

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to 127.0.0.1."""
        with anyio.fail_after(DEADLINE_S):
            return cls(await anyio.connect_tcp("127.0.0.1", port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    async def send(self, data: bytes) -> None:
        """Write ``data`` in one go."""
        with anyio.fail_after(DEADLINE_S):
            await self._stream.send(data)

    async def shutdown_write(self) -> None:
        """Half-close."""
        await self._stream.send_eof()

    async def ask(self, line: str, body: bytes | None = None, *headers: str) -> Answer:
        """Send a request and read its answer."""
        await self.send(request(line, body, *headers))
        return await self.answer()

    async def answer(self) -> Answer:
        """Read one answer."""
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            await self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(version, int(status), headers, body)

    async def answers(self) -> list[Answer]:
        """Read answers until the server closes."""
        found = []
        while self._buffer or await self._fill():
            found.append(await self.answer())
        return found

    async def closed(self) -> None:
        """Wait until the server has closed; anything it still sends is a failure."""
        assert not self._buffer
        assert not await self._fill(), self._buffer

    async def _more(self) -> None:
        assert await self._fill(), f"the server closed after {self._buffer!r}"

    async def _fill(self) -> bool:
        with anyio.fail_after(DEADLINE_S):
            try:
                self._buffer += await self._stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError) as end:
                self.reset = isinstance(end, anyio.BrokenResourceError)
                return False
        return True
