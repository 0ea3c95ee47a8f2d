"""HTTPS: the same protocols as HTTP, on a TLS layer."""

import asyncio
from typing import cast

from pynsqd.httpapi.ingest import Ingest
from pynsqd.net.layers.certificates import Certificates
from pynsqd.net.layers.intake import Intake
from pynsqd.net.layers.tls import TlsLayer

# How Go tells what is HTTP, and what it says to it.
_HTTP_BEGINNINGS = (b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO")
_NOT_HTTPS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


class Secured:
    """The HTTPS side of a node. ``connection`` is the protocol factory of the listener.

    ``ingest`` makes what speaks HTTP on a connection once that speaks TLS; those that do not yet are its too.
    """

    def __init__(self, certificates: Certificates, ingest: Ingest) -> None:
        self._certificates = certificates
        self._ingest = ingest

    def connection(self) -> asyncio.BaseProtocol:
        """Make the protocol of a new connection."""
        shaking = self._ingest.shaking
        if self._ingest.door.is_shut(self._ingest.open_now):
            return _TurnedAway()

        def ready(layer: TlsLayer) -> None:
            shaking.discard(layer)
            protocol = self._ingest.connection()
            layer.set_protocol(protocol)
            protocol.connection_made(layer)

        def failed(cause: str) -> None:
            shaking.discard(layer)
            if layer.first_bytes.startswith(_HTTP_BEGINNINGS) and not layer.is_closing():
                layer.below.write(_NOT_HTTPS)
            layer.below.close()

        layer = TlsLayer(self._certificates.engine(), ready, failed)
        shaking.add(layer)
        return Intake(self._ingest.turn, layer)


class _TurnedAway(asyncio.Protocol):
    """A connection too many: there is no answer that a client in a handshake would understand."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()
