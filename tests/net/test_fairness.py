"""However a client speaks, and whatever it has sent: it is listened to for one read, then others have their turn."""

import socket
import ssl
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from pynsqd.core.session import Session
from pynsqd.httpapi.ingest import IngestConnection
from pynsqd.net.turn import RECEIVE_BUFFER, Turn
from tests.support.certificates import Authority
from tests.support.nodes import eventually, inside
from tests.support.upgrades import asking
from tests.support.wire import Address, command

# Their answers are few enough to be left unread.
POST = b"POST /pub?topic=t HTTP/1.1\r\nHost: n\r\nContent-Length: 4000\r\n\r\n" + bytes(4000)
PUB = command(b"PUB t", bytes(4000))

BEGUN = 1 << 14  # of a TLS record whose beginning the read before has brought


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    if request.param:
        pytest.importorskip("uvloop")
    return ("asyncio", {"use_uvloop": request.param})


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that clients had carried out, turn by turn."""
    noted = [0]
    receive, take, end = Session.receive, IngestConnection.data_received, Turn._end

    def received(session: Session, data: bytes, now_ns: int) -> None:
        noted[-1] += len(data)
        receive(session, data, now_ns)

    def taken(connection: IngestConnection, data: bytes) -> None:
        noted[-1] += len(data)
        take(connection, data)

    def ended(turn: Turn) -> None:
        end(turn)
        noted.append(0)

    monkeypatch.setattr(Session, "receive", received)
    monkeypatch.setattr(IngestConnection, "data_received", taken)
    monkeypatch.setattr(Turn, "_end", ended)
    return noted


def _connect(address: Address) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    one.settimeout(30)
    one.connect(address)
    return one


def _v2(address: Address, context: ssl.SSLContext | None) -> socket.socket:
    """Connect, and go through the upgrade."""
    one = _connect(address)
    one.sendall(b"  V2" + asking("tls_v1" if context else ""))
    one.recv(4096)
    return _https(one, context) if context else one


def _https(one: socket.socket, context: ssl.SSLContext) -> socket.socket:
    return context.wrap_socket(one, server_hostname="localhost")


def _fill(one: socket.socket, data: bytes) -> int:
    """Send until nothing more fits, without the node reading meanwhile; return how many bytes that were."""
    one.setblocking(False)
    sent = 0
    while True:
        try:
            sent += one.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return sent


@pytest.mark.parametrize("spoken", ["plain", "TLS", "HTTPS"])
async def test_a_flood_is_carried_out_one_read_a_turn(spoken: str, shares: list[int], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.context()
    async with inside(tmp_path, **authority.options()) as node:
        if spoken == "HTTPS":
            given: tuple[Any, ...] = (lambda: _https(_connect(node.https), context),)
        else:
            given = (_v2, node.tcp, context if spoken == "TLS" else None)
        with await anyio.to_thread.run_sync(*given) as client:
            before = sum(shares)
            sent = _fill(client, POST if spoken == "HTTPS" else PUB)
            assert sent > 2 * RECEIVE_BUFFER
            await eventually(lambda: sum(shares) - before >= sent)
            assert max(shares) <= RECEIVE_BUFFER + BEGUN
