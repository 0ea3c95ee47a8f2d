"""The upgrade that IDENTIFY agrees on: layers put between a socket and its session, one after the other (PROTOCOL 1.6).

The session knows nothing of layers. What the client sent behind its IDENTIFY goes to the first of them: a client that
does not wait for the answer is either understood or refused, never half heard.
"""

import asyncio
from typing import Protocol

from pynsqd.core.session import Session
from pynsqd.net.layers.certificates import Certificates
from pynsqd.net.layers.codecs import Codec, Deflate, Snappy
from pynsqd.net.layers.compression import CompressionLayer
from pynsqd.net.layers.intake import Intake
from pynsqd.net.layers.layer import Above
from pynsqd.net.layers.tls import TlsLayer
from pynsqd.net.turn import Turn
from pynsqd.wire import encoder
from pynsqd.wire.errors import E_IDENTIFY_FAILED, E_INVALID, FatalClientError


class Upgraded(Above, Protocol):
    """The connection whose transport changes."""

    def stand_on(self, transport: asyncio.Transport) -> None:
        """Write to ``transport`` from now on."""
        ...

    def resume_reading(self) -> None:
        """Read again."""
        ...

    def upgraded(self) -> None:
        """Have the session go on."""
        ...

    def refuse(self, error: FatalClientError) -> None:
        """Tell the client what is wrong and close."""
        ...


class Upgrade:
    """One connection's way from the socket as it is to what ``session.identity`` says."""

    def __init__(self, turn: Turn, connection: Upgraded, session: Session, certificates: Certificates | None) -> None:
        self._turn = turn
        self._connection = connection
        self._session = session
        self._certificates = certificates

    def begin(self, transport: asyncio.Transport, pipelined: bytes) -> None:
        """Start, with what came after IDENTIFY; ``transport`` does not read until here."""
        if transport.is_closing():
            return
        intake = Intake(self._turn)
        intake.connection_made(transport)
        transport.set_protocol(intake)
        first: TlsLayer | CompressionLayer | None
        if self._session.identity.tls and self._certificates is not None:
            first = TlsLayer(self._certificates.engine(), self._secured, lambda cause: self._failed(intake, cause))
            first.set_protocol(self._connection)  # type: ignore[arg-type]
            first.connection_made(intake)
            intake.set_protocol(first)
        else:
            first = self._compress(intake)
        self._connection.resume_reading()
        if pipelined and first is not None:
            first.data_received(pipelined)

    def _secured(self, layer: TlsLayer) -> None:
        self._connection.stand_on(layer)
        self._session.security = layer.security
        layer.write(encoder.OK)
        self._compress(layer)

    def _failed(self, intake: Intake, cause: str) -> None:
        """Go back to before: nsqd says in the clear why there is no TLS."""
        intake.set_protocol(self._connection)  # type: ignore[arg-type]
        self._connection.refuse(FatalClientError(E_IDENTIFY_FAILED, f"IDENTIFY failed {cause}"))

    def _compress(self, below: asyncio.Transport) -> CompressionLayer | None:
        layer = None
        codec = self._codec()
        if codec is not None:
            # The largest body may be all the same, and the next have begun.
            slack = 2 * self._session.broker.options.max_body_size
            layer = CompressionLayer(below, self._connection, codec, slack, self._expands)
            below.set_protocol(layer)
            self._connection.stand_on(layer)
            layer.write(encoder.OK)
        self._connection.upgraded()
        return layer

    def _codec(self) -> Codec | None:
        identity = self._session.identity
        if identity.snappy:
            return Snappy()
        return Deflate(identity.deflate_level) if identity.deflate else None

    def _expands(self) -> None:
        self._connection.refuse(FatalClientError(E_INVALID, "compressed data expands too much"))
