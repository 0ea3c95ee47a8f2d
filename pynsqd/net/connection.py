"""The socket of one V2 client: bytes ↔ session, one write a turn. Hot."""

import asyncio
from typing import cast

from pynsqd.core.session import Session
from pynsqd.net.door import Door
from pynsqd.net.layers.certificates import Certificates
from pynsqd.net.turn import RECEIVE_BUFFER, Turn
from pynsqd.net.upgrade import Upgrade
from pynsqd.wire.errors import FatalClientError

# Above this many unwritten bytes the peer is slow and gets no more messages until it has read most of them.
_HIGH_WATER = 1 << 18

# Above this it is not listened to either, since what it says makes for replies; looked at so often.
_MOST_UNREAD = 1 << 20
_LOOK_AGAIN_S = 0.05

# How long a peer may take to read what was written before a close.
_LINGER_S = 5.0


class Connection(asyncio.BufferedProtocol):
    """Feeds a session and writes what it has to say at the end of the turn.

    ``certificates`` are for a client that asks for TLS.
    """

    __slots__ = ("_certificates", "_door", "_looking", "_session", "_stuck", "_transport", "_turn", "_waiting")

    _session: Session
    _transport: asyncio.Transport

    def __init__(self, turn: Turn, door: Door, certificates: Certificates | None = None) -> None:
        self._turn = turn
        self._door = door
        self._certificates = certificates
        self._stuck = False  # the peer does not read
        self._waiting = False  # the session wants no more for now
        self._looking = False  # how much is unread is looked at again by itself

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the session, if there is room for one more."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        if self._door.refuses(self._transport, len(self._turn.broker.sessions)):
            return
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._session = self._turn.broker.session(self, remote_address(self._transport), self._turn.now_ns())
        self._turn.schedule()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the turn's buffer for one read."""
        return self._turn.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand what was read to the session."""
        turn = self._turn
        self._session.receive(turn.receive_buffer[:nbytes].tobytes(), turn.heard(self))
        if nbytes == RECEIVE_BUFFER:  # there is more; libuv would read on and on before it looks at anybody else
            self._transport.pause_reading()
            turn.soon(self._read_on)

    def _read_on(self) -> None:
        """Read again: the turn is over, others have had theirs."""
        if not self._waiting and not self._unread() and not self._transport.is_closing():
            self._transport.resume_reading()

    def _unread(self) -> bool:
        """Whether the peer has left so much unread that it is not listened to."""
        return self._stuck and self._transport.get_write_buffer_size() > _MOST_UNREAD

    def data_received(self, data: bytes) -> None:
        """Hand what a layer has decoded to the session."""
        self._session.receive(data, self._turn.heard(self))

    def eof_received(self) -> bool:
        """Let the session answer a body that was cut short; the end of the turn closes."""
        self._session.eof()
        self._turn.touch(self)
        return True

    def flush(self) -> None:
        """Write what the session has to say; close, or upgrade, when that was the last of it."""
        session = self._session
        output = session.take_output()
        if output:
            self._transport.write(output[0] if len(output) == 1 else b"".join(output))
        if session.finished:
            self._end()
        elif output and self._turn.broker.dirty:
            self._turn.schedule()  # written messages make room for more

    def _end(self) -> None:
        pipelined = self._session.take_upgrade()
        if pipelined is not None:
            Upgrade(self._turn, self, self._session, self._certificates).begin(self._transport, pipelined)
            return
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._turn.later(_LINGER_S, self._transport.abort)

    def stand_on(self, transport: asyncio.Transport) -> None:
        """Write to a layer from now on."""
        self._transport = transport

    def upgraded(self) -> None:
        """Have the session go on, and its timer set: handshakes take their time, and no turn."""
        self._session.upgraded(self._turn.now_ns())
        self._turn.touch(self)

    def refuse(self, error: FatalClientError) -> None:
        """Tell the client what is wrong and close."""
        self._session.fail(error)
        self._turn.touch(self)

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self._stuck = True
        self._session.pause_writing(self._turn.now_ns())
        self._limit_unread()

    def _limit_unread(self) -> None:
        if not self._stuck or self._transport.is_closing():
            return
        if self._unread():
            self._transport.pause_reading()
        elif not self._looking:
            self._looking = True
            self._turn.later(_LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._looking = False
        self._limit_unread()

    def pause_reading(self) -> None:
        """Leave what comes in the socket."""
        self._waiting = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, and write what the session has to say by now."""
        self._waiting = False
        if not self._stuck:
            self._transport.resume_reading()
        self._turn.touch(self)

    def resume_writing(self) -> None:
        """The peer has read most of what was waiting."""
        self._stuck = False
        if not self._waiting:
            self._transport.resume_reading()
        self._session.resume_writing()
        self._turn.schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the session give back what it holds."""
        self._session.closed()
        self._turn.schedule()


def remote_address(transport: asyncio.Transport) -> str:
    """Return ``host:port`` of the peer as Go prints it, ``@`` on a Unix socket (PROTOCOL 2.5)."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "@"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
