"""What comes where a TLS handshake is expected. The first byte says how it is cut into reads, the second who reads it.

The second byte also says whether what is behind it is sent as it stands, or is what to change in the bytes of a client
that means well: it shakes hands, sends commands and says goodbye. Its keys are new each time, so a change hits the same
place, but not the same byte.
"""

import asyncio
import atexit
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pynsqd.net.layers.certificates import Certificates
from pynsqd.net.layers.engines import Engine
from pynsqd.net.layers.tls import TlsLayer
from pynsqd.options import Options
from tests.fuzz.dice import pieces
from tests.support.certificates import Authority

_LOOP = asyncio.new_event_loop()
_FOLDER = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_AUTHORITY = Authority(_FOLDER)
_CLIENT = _AUTHORITY.context(client="fuzz")
_ENGINES: list[Callable[[], Engine]] = [
    Certificates(Options(**_AUTHORITY.options(tls_client_auth_policy=policy))).engine for policy in ("", "require")
]
_SAID = b"NOP\n" * 100
_CHANGED, _SENT = 0, 1  # what the second byte says
_FLIGHTS = 4  # from the client: hello, perhaps another one, the end of the handshake and what it says, the rest


def seeds() -> Iterable[bytes]:
    """Return beginnings of a handshake, and changes to one in each of its places."""
    client, _, outgoing = _client()
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    for size, engine in ((0, 0), (1, 0), (13, 0), (0, 2), (1, 2)):
        for sent in (
            hello,
            b"\x16\x03\x01\x00\x05hello",
            b"\x15\x03\x01\x00\x02\x01\x00",
            b"  V2NOP\n",
            b"\x80\x2e\x01",
        ):
            yield bytes([size, engine | _SENT]) + sent
        yield bytes([size, engine | _CHANGED])
        for flight in range(3):
            for place in (0, 1, 3, 5, 9, 43, 80, 200, len(hello) - 1):
                yield bytes([size, engine | _CHANGED, flight]) + place.to_bytes(2, "big") + b"\xff"


def run(data: bytes) -> None:
    """Raise unless it ends in a handshake or a failure, once, and no word passes that the client has not said."""
    if len(data) < 2:
        return
    engine = _ENGINES[data[1] >> 1 & 1]()
    _LOOP.run_until_complete(_serve(engine, data[0], data[1], data[2:]))


class _Socket(asyncio.Transport):
    """The other side, as asyncio shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += data

    def take(self) -> bytes:
        data, self.written = self.written, b""
        return data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 4150)


class _Above(asyncio.Protocol):
    """Keeps what passed."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = False

    def data_received(self, data: bytes) -> None:
        assert data
        assert not self.ended
        self.heard += data

    def eof_received(self) -> bool:
        self.ended = True
        return False


class _Served:
    """One connection."""

    def __init__(self, engine: Engine) -> None:
        self.outcomes: list[str] = []
        self.above = _Above()
        self.socket = _Socket()
        self.layer = TlsLayer(engine, self._secured, self._failed)
        self.layer.set_protocol(self.above)
        self.layer.connection_made(self.socket)

    def _secured(self, layer: TlsLayer) -> None:
        assert layer.security.version
        self.outcomes.append("secured")

    def _failed(self, cause: str) -> None:
        assert cause.isprintable()
        self.outcomes.append("failed")
        self.layer.below.close()

    def receive(self, reads: list[bytes]) -> None:
        for read in reads:
            if not self.socket.closed:
                self.layer.data_received(read)
            assert not self.above.heard or self.outcomes == ["secured"]


async def _serve(engine: Engine, size: int, kind: int, data: bytes) -> None:
    served = _Served(engine)
    if kind % 2 == _SENT:
        served.receive(pieces(data, size))
        assert not served.above.heard, "who shows no certificate has said nothing"
    else:
        changed = _converse(served, size, data)
        assert _SAID.startswith(served.above.heard)
        assert changed or (served.above.heard, served.above.ended) == (_SAID, True)
    if not served.socket.closed:
        served.layer.eof_received()
    served.layer.connection_lost(None)
    assert len(served.outcomes) == 1, served.outcomes
    assert served.outcomes == ["secured"] or not served.above.ended


def _converse(served: _Served, size: int, changes: bytes) -> bool:
    """Have a client speak whose bytes are changed on the way; tell whether any were."""
    client, incoming, outgoing = _client()
    changed = said = False
    for flight in range(_FLIGHTS):
        with suppress(ssl.SSLError):  # it wants an answer, or does not like the one it got and says so
            client.do_handshake()
            if not said:
                said = True
                client.write(_SAID[:40])
                client.write(_SAID[40:])
                client.unwrap()
        sent = outgoing.read()
        arriving = _change(sent, flight, changes)
        changed |= arriving != sent
        served.receive(pieces(arriving, size))
        incoming.write(served.socket.take())
    return changed


def _client() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return _CLIENT.wrap_bio(incoming, outgoing, server_hostname="localhost"), incoming, outgoing


def _change(sent: bytes, flight: int, changes: bytes) -> bytes:
    """Change the bytes that are named: four bytes say in which flight, where, and what is flipped; 0 takes it away."""
    arriving = bytearray(sent)
    for at in range(0, len(changes) - 3, 4):
        place = int.from_bytes(changes[at + 1 : at + 3], "big")
        if changes[at] % _FLIGHTS == flight and place < len(arriving):
            if changes[at + 3]:
                arriving[place] ^= changes[at + 3]
            else:
                del arriving[place]
    return bytes(arriving)
