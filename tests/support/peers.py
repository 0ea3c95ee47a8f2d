"""What a node talks to, played by the test: an auth server, and an nsqlookupd that keeps what it is told."""

import asyncio
import json
from abc import ABC, abstractmethod
from asyncio import StreamReader, StreamWriter


class Peer(ABC):
    """A server on a free port from ``start`` to ``stop``; ``address`` is ``host:port``."""

    def __init__(self) -> None:
        self.address = ""
        self._server: asyncio.Server | None = None
        self._conversations: dict[asyncio.Task[None], StreamWriter] = {}

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Listen no more and end all conversations."""
        if self._server is not None:
            self._server.close()
        for writer in self._conversations.values():
            writer.close()
        await asyncio.gather(*self._conversations)

    async def _converse(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations[task] = writer
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            del self._conversations[task]

    @abstractmethod
    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None: ...


class HttpPeer(Peer):
    """Answers every GET with ``answer`` and keeps the requests as (request line without its version, headers)."""

    def __init__(self, answer: bytes = b"{}", status: int = 200) -> None:
        super().__init__()
        self.answer = answer
        self.status = status
        self.requests: asyncio.Queue[tuple[str, dict[str, str]]] = asyncio.Queue()

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.requests.put_nowait((line.removesuffix(" HTTP/1.1"), headers))
        length = len(self.answer)
        start = f"HTTP/1.1 {self.status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        writer.write(start.encode() + self.answer)
        await writer.drain()


class LookupPeer(Peer):
    """Speaks lookupd's side of V1: answers OK to everything and keeps the magic and the commands as their bytes."""

    def __init__(self, http: HttpPeer) -> None:
        super().__init__()
        self.commands: asyncio.Queue[bytes] = asyncio.Queue()
        self._http = http

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.commands.put_nowait(await reader.readexactly(4))
        while True:
            line = await reader.readuntil(b"\n")
            answer = b"OK"
            if line == b"IDENTIFY\n":
                size = await reader.readexactly(4)
                line += await reader.readexactly(int.from_bytes(size, "big"))
                answer = self._identity()
            self.commands.put_nowait(line)
            writer.write(len(answer).to_bytes(4, "big") + answer)
            await writer.drain()

    def _identity(self) -> bytes:
        own = {"broadcast_address": "127.0.0.1", "hostname": "peer", "version": "1.3.0"}
        ports = {"tcp_port": _port(self.address), "http_port": _port(self._http.address)}
        return json.dumps(own | ports).encode()


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
