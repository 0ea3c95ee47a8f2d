"""aiohttp's server side with nsqd's manners. Imports aiohttp, so ``http_server`` imports this late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader


_HEAD_S: Final = 60.0  # for the head of a request to come whole
_LARGEST_HEAD: Final = 1 << 16  # bytes; aiohttp limits each line, but not their number


class HttpResponse(web.Response):
    """A response without a Server header, as nsqd's have none."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


class HttpConnection(web.RequestHandler):
    """One connection.

    Four things differ from aiohttp's own: a client that has shut down its side still gets the answers it asked for, as
    from nsqd; what is no HTTP is answered as Go answers it and not logged, since anybody can send it; neither is a
    client that leaves at once; and a head that is not there in time, or has no end, ends the connection.
    """

    __slots__ = ("_half_closed", "_head_due", "_head_size", "reading")

    def __init__(self, manager: web.Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._half_closed = False
        self._head_due: asyncio.TimerHandle | None = None
        self._head_size = 0  # bytes that have come of a head
        self.reading: StreamReader | None = None  # the body of the request that is being answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._head_due = asyncio.get_running_loop().call_later(_HEAD_S, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait no more."""
        self._have_head()
        super().connection_lost(exc)

    def _have_head(self) -> None:
        self._head_size = 0
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def data_received(self, data: bytes) -> None:
        """Take bytes, of a head only so many and for so long."""
        super().data_received(data)
        if self.reading is not None or self._messages:
            self._have_head()
            return
        self._head_size += len(data)
        if self._head_size > _LARGEST_HEAD:
            self.force_close()
        elif self._head_due is None:
            self._head_due = asyncio.get_running_loop().call_later(_HEAD_S, self.force_close)

    async def start(self) -> None:
        """Answer requests; aiohttp takes it for an error if the client has left before it comes to that."""
        if self._manager is not None:
            await super().start()

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp says None, asyncio lets it be a bool
        """Stay open for the answers that are owed; a body that stays incomplete is an error to its reader."""
        self._half_closed = True
        self._lingering_time = 0.0  # nothing more comes that would have to be read and dropped
        for body in (self.reading, *(body for _, body in self._messages)):
            if body is not None and not body.is_eof():
                body.set_exception(web.RequestPayloadError("the client has shut down its side"))
        return self.reading is not None or bool(self._messages)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response, and end a half-closed connection after the last one."""
        finished = await super().finish_response(request, resp, start_time)
        self.reading = None
        if self._half_closed and not self._messages:
            self.close()
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed."""
        response = HttpResponse(text=f"{status} Bad Request", status=status)
        response.force_close()
        return response


class HttpServer(web.Server):
    """The factory of ``HttpConnection``."""

    def __call__(self) -> HttpConnection:
        """Make the protocol of a new connection."""
        return HttpConnection(self, loop=self._loop, **self._kwargs)

    def close(self) -> None:
        """End every connection; answers that are not finished are lost."""
        for connection in self.connections:
            connection.force_close()

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        assert isinstance(protocol, HttpConnection)  # noqa: S101  for the type checker
        protocol.reading = payload
        return super()._make_request(message, payload, protocol, writer, task)
