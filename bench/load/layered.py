"""Connections over TLS, snappy and deflate, for the load; and the certificate that the brokers show."""

from __future__ import annotations

import atexit
import json
import socket
import ssl
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from load.broker import Address
from load.failed import Failed
from load.wire import IDENTIFY, OK, connect, sized

RECEIVE_SIZE: Final = 1 << 18
_IDENTIFIER: Final = b"\xff\x06\0\0sNaPpY"


@cache
def certificate_flags() -> tuple[str, ...]:
    """The flags of a broker with a certificate, which is made once and removed at the end."""
    import trustme  # noqa: PLC0415 - only these rows need it

    folder = tempfile.TemporaryDirectory(prefix="bench-nsq-tls-")
    atexit.register(folder.cleanup)
    cert, key = Path(folder.name, "cert.pem"), Path(folder.name, "key.pem")
    issued = trustme.CA().issue_cert("localhost")
    cert.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return f"--tls-cert={cert}", f"--tls-key={key}", "--https-address=127.0.0.1:0"


class Layered:
    """As much of a socket as the load uses, with compression."""

    def __init__(self, below: socket.socket) -> None:
        self._below = below
        self._rest = b""
        self._compress: Callable[[bytes], bytes] = bytes
        self._decompress: Callable[[bytes], bytes] = bytes

    def start_deflate(self) -> None:
        """Raw deflate both ways."""
        out, into = zlib.compressobj(6, zlib.DEFLATED, -15), zlib.decompressobj(-15)
        self._compress = lambda data: out.compress(data) + out.flush(zlib.Z_SYNC_FLUSH)
        self._decompress = into.decompress

    def start_snappy(self) -> None:
        """Snappy's framing format both ways."""
        import cramjam  # noqa: PLC0415 - only these rows need it

        out, waiting = cramjam.snappy.Compressor(), bytearray()

        def compress(data: bytes) -> bytes:
            out.compress(data)
            return bytes(out.flush())

        def decompress(data: bytes) -> bytes:
            waiting.extend(data)
            whole, end = 0, len(waiting)
            while end - whole >= 4:
                stop = whole + 4 + int.from_bytes(waiting[whole + 1 : whole + 4], "little")
                if stop > end:
                    break
                whole = stop
            chunks = bytes(waiting[:whole])
            del waiting[:whole]
            return bytes(cramjam.snappy.decompress(_IDENTIFIER + chunks)) if chunks else b""

        self._compress, self._decompress = compress, decompress

    def sendall(self, data: bytes) -> None:
        """Send all of it, and everything the other side needs to read it."""
        self._below.sendall(self._compress(data))

    def read(self) -> bytes:
        """What has come; waits for something."""
        data, self._rest = self._rest, b""
        while not data:
            received = self._below.recv(RECEIVE_SIZE)
            if not received:
                raise Failed("the broker closed the connection")
            data = self._decompress(received)
        return data

    def exactly(self, count: int) -> bytes:
        """That many bytes."""
        data = self.read()
        while len(data) < count:
            data += self.read()
        self._rest = data[count:]
        return data[:count]

    def expect_ok(self) -> None:
        """Reads one OK."""
        answer = self.exactly(len(OK))
        if answer != OK:
            raise Failed(f"the broker answered {answer!r}")


def connect_layered(address: Address, layers: tuple[str, ...]) -> Layered:
    """A connection that has gone through the upgrade to `layers`: of tls_v1, snappy, deflate."""
    below = connect(address)
    asked: dict[str, Any] = json.loads(IDENTIFY) | {"feature_negotiation": True} | dict.fromkeys(layers, True)
    below.sendall(b"IDENTIFY\n" + sized(json.dumps(asked).encode()))
    size = int.from_bytes(below.recv(4, socket.MSG_WAITALL), "big")
    answer = json.loads(below.recv(size, socket.MSG_WAITALL)[4:])
    if not all(answer[layer] for layer in layers):
        raise Failed(f"the broker does not offer all of {', '.join(layers)}")
    if "tls_v1" in layers:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        below = context.wrap_socket(below)
    connection = Layered(below)
    if "tls_v1" in layers:
        connection.expect_ok()
    if "snappy" in layers:
        connection.start_snappy()
        connection.expect_ok()
    if "deflate" in layers:
        connection.start_deflate()
        connection.expect_ok()
    return connection
