"""The socket of one V1 client: bytes between the transport and its session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from lookupd.session import Session

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from lookupd.registration_db import RegistrationDB

# nsqlookupd waits for ever in all three cases.
_MAGIC_TIMEOUT_S: Final = 30.0
_STALL_TIMEOUT_S: Final = 60.0  # answers that the client does not read
_CLOSE_TIMEOUT_S: Final = 5.0  # a last answer that it does not read
# After a read of so many bytes others have their turn first: libuv by itself would read on, up to 32 times.
_FULL_READ: Final = 1 << 16
_SHOWN: Final = 255  # characters in the log of what a node says of itself


class Connection(asyncio.Protocol):
    """One client. While it does not read its answers, nothing more is read from it."""

    def __init__(
        self,
        db: RegistrationDB,
        identity: Callable[[], bytes],
        connections: set[Connection],
        log: FilteringBoundLogger,
    ) -> None:
        """Start a connection.

        Args:
            db: where the client's registrations go.
            identity: gives the JSON that answers an IDENTIFY.
            connections: the connections that are open; this one adds and removes itself.
            log: where its coming and going is noted.
        """
        self._db = db
        self._identity = identity
        self._connections = connections
        self._log = log
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck = False  # the client does not read its answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the session and the wait for its magic."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not asyncio's by type
        self._peer = _format_peer(transport.get_extra_info("peername"))
        self._session = Session(self._peer, self._db, self._identity)
        self._connections.add(self)
        self._abort_in(_MAGIC_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session."""
        self._abort_in(None)
        self._connections.discard(self)
        self._session.leave()
        if self._session.producer is not None:
            self._log.info("producer left", client=self._peer)

    def data_received(self, data: bytes) -> None:
        """Answer what has arrived, in one write."""
        if self._session.closing:
            return
        greeted, identified = self._session.greeted, self._session.producer
        answers = self._session.receive(data, time.time_ns())
        if not greeted and self._session.greeted:
            self._abort_in(None)
        if identified is None and self._session.producer is not None:
            info = self._session.producer.info
            self._log.info(
                "producer identified",
                client=self._peer,
                broadcast_address=info.broadcast_address[:_SHOWN],
                tcp_port=info.tcp_port,
                http_port=info.http_port,
                version=info.version[:_SHOWN],
            )
        self._transport.write(answers)
        if self._session.closing:
            self.close()
        elif len(data) >= _FULL_READ:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._stuck and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """Answer a command that was cut off, then let the transport close."""
        self._transport.write(self._session.end())
        self.close()
        return True

    def pause_writing(self) -> None:
        """Stop reading while the answers pile up."""
        self._stuck = True
        self._transport.pause_reading()
        self._abort_in(_STALL_TIMEOUT_S)

    def resume_writing(self) -> None:
        """Read on."""
        self._stuck = False
        if not self._session.closing:
            self._transport.resume_reading()
            self._abort_in(None)

    def close(self) -> None:
        """Close once everything has been written; soon in any case."""
        if self._session.refusal:
            self._log.warning("client refused", client=self._peer, reason=self._session.refusal[:_SHOWN])
        self._transport.close()
        self._abort_in(_CLOSE_TIMEOUT_S)

    def _abort_in(self, seconds: float | None) -> None:
        """Set the one deadline that the connection has, or clear it."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._transport.abort)


def _format_peer(peername: tuple[str, int] | tuple[str, int, int, int] | None) -> str:
    if not peername:
        return "unknown"  # it has gone already
    host, port = peername[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
