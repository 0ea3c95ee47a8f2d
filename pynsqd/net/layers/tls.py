"""TLS as a layer: the handshake with its deadline, then records both ways (PROTOCOL 1.6)."""

import asyncio
from collections.abc import Callable
from typing import Final

from pynsqd.core.security import Security
from pynsqd.net.layers.engines import Engine, TlsError
from pynsqd.net.layers.layer import Layer

HANDSHAKE_S: Final = 5.0

_RECORD_HEAD: Final = 5  # type, version, length
_SLICE: Final = 1 << 16  # the engine's buffers stay as large as the most they ever held
_ALERT, _HANDSHAKE, _SSLV2 = 0x15, 0x16, 0x80


class TlsLayer(Layer):
    """The server's side. Exactly one of the two callbacks comes.

    ``secured`` comes when the handshake is done: time to ``set_protocol``, if that was not done before.
    ``failed`` comes with the cause when it was not TLS, or not as demanded, or not in time. What TLS has to say of it
    was written; the socket is open, and whoever is called decides what becomes of it.
    """

    def __init__(self, engine: Engine, secured: Callable[["TlsLayer"], None], failed: Callable[[str], None]) -> None:
        self._engine = engine
        self._secured: Callable[[TlsLayer], None] | None = secured
        self._failed: Callable[[str], None] | None = failed
        self._head: bytes | None = b""  # the first bytes, until they are enough to know whether this is TLS
        self._shaking = True
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def security(self) -> Security:
        """What was agreed."""
        return self._engine.security()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Await the handshake on ``transport``."""
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._late)

    def data_received(self, data: bytes) -> None:
        """Decrypt what has come."""
        if self._head is not None:
            data = self._head + data
            self._head = data
            if len(data) < _RECORD_HEAD:
                return
            cause = refusal_of(data)
            if cause:
                self._fail(cause)
                return
            self._head = None
        if not self._shaking:
            self._pass_on(data)
            return
        self._engine.feed(data)
        if self._shake():
            self._pass_on(b"")  # a client need not wait for the last word of the handshake

    @property
    def first_bytes(self) -> bytes:
        """What came instead of TLS."""
        return self._head or b""

    def _shake(self) -> bool:
        try:
            done = self._engine.handshake()
        except TlsError as error:
            self._send()
            self._fail(str(error))
            return False
        self._send()
        secured = self._secured
        if done and secured is not None:
            self._end_handshake()
            secured(self)
        return done

    def _pass_on(self, data: bytes) -> None:
        parts: list[bytes] = []
        broken = ended = False
        try:
            for at in range(0, len(data) or 1, _SLICE):
                self._engine.feed(data[at : at + _SLICE])
                part, ended = self._engine.read()
                if part:
                    parts.append(part)
        except TlsError:
            broken = True
        self._send()  # what TLS says by itself, such as new keys, or why it ends
        if parts and self._above is not None:
            self._above.data_received(parts[0] if len(parts) == 1 else b"".join(parts))
        if broken:
            self.below.close()
        elif ended:
            self.eof_received()

    def _send(self) -> None:
        data = self._engine.take()
        if data and not self.below.is_closing():
            self.below.write(data)

    def _late(self) -> None:
        name = self.below.get_extra_info
        local, remote = name("sockname"), name("peername")
        path = f"tcp {_address(local)}->{_address(remote)}" if remote else "unix @"
        self._fail(f"read {path}: i/o timeout")

    def _fail(self, cause: str) -> None:
        failed = self._failed
        if failed is not None:
            self._end_handshake()
            failed(cause)

    def _end_handshake(self) -> None:
        self._shaking = False
        self._secured = self._failed = None  # they hold who holds this
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def eof_received(self) -> bool:
        """Pass the end on; in the handshake it is a failure."""
        if self._shaking:
            self._fail("EOF")
            return True
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on; in the handshake it is a failure too."""
        self._fail("EOF")
        super().connection_lost(exc)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and write."""
        if not data or self.below.is_closing():
            return
        parts: list[bytes] = []
        view = memoryview(data)
        try:
            for at in range(0, len(view), _SLICE):
                self._engine.write(view[at : at + _SLICE])
                parts.append(self._engine.take())
        except TlsError:
            self.below.abort()
            return
        self.below.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        """Say goodbye and close once everything has been written."""
        if not self.below.is_closing():
            if not self._shaking:
                self._engine.shut_down()
                self._send()
            self.below.close()


def refusal_of(head: bytes) -> str:
    """Tell why the first bytes of a connection are no TLS, as Go words it; empty if they may be."""
    kind, version = head[0], int.from_bytes(head[1:3], "big")
    if kind == _SSLV2:
        return "tls: unsupported SSLv2 handshake received"
    if kind not in (_ALERT, _HANDSHAKE) or version >= 0x1000:
        return "tls: first record does not look like a TLS handshake"
    return ""


def _address(name: tuple[str, int]) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
