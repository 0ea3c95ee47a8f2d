"""Listening sockets: TCP host:port, or a path for a Unix socket (PROTOCOL 4.1, PROCESS 10)."""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass

from pynsqd.wire.errors import StartupError

# Short connections come in crowds (a PHP request each); the kernel caps this at somaxconn.
_BACKLOG = 4096
# As Go's listeners: a peer that vanished without a word is noticed after some two and a half minutes, also where no
# heartbeat or timeout would. The kernel's own figures make it two hours.
_KEEPALIVE_S = 15
_KEEPALIVE_PROBES = 9


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket that does not accept yet."""

    server: asyncio.Server
    address: str  # as it is printed: host:port with the real port, or the path
    port: int  # -1 on a Unix socket


def split_address(address: str) -> tuple[str, int] | None:
    """Split ``host:port``; None for anything without a port, which is the path of a Unix socket.

    Raises StartupError if what follows the last colon is no port.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "/" in port:
        return None
    if not port.isdecimal() or int(port) > 65535:
        raise StartupError(f"listen ({address}) failed - invalid port {port!r}")
    return host.strip("[]"), int(port)


async def listen(address: str, factory: Callable[[], asyncio.BaseProtocol]) -> Listener:
    """Bind ``address``; ``Listener.server.start_serving()`` begins to accept. Raises StartupError."""
    loop = asyncio.get_running_loop()
    parts = split_address(address)
    try:
        if parts is None:
            return await _listen_unix(loop, address, factory)
        host, port = parts
        server = await loop.create_server(factory, _resolve(host), port, backlog=_BACKLOG, start_serving=False)
    except OSError as error:
        raise StartupError(f"listen ({address}) failed - {error.strerror or error}") from None
    except UnicodeError:  # what the resolver says to a name that cannot be one
        raise StartupError(f"listen ({address}) failed - invalid host name") from None
    _keep_alive(server)
    bound = server.sockets[0].getsockname()
    shown = f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    return Listener(server, shown, bound[1])


def _keep_alive(server: asyncio.Server) -> None:
    """Have the kernel ask silent peers whether they are there; accepted sockets inherit it."""
    for listening in server.sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def _resolve(host: str) -> str:
    """Name one address: with port 0 each address of a name would get a port of its own."""
    if not host:
        return "0.0.0.0"  # noqa: S104 - what an address without a host means in Go
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


async def _listen_unix(
    loop: asyncio.AbstractEventLoop, path: str, factory: Callable[[], asyncio.BaseProtocol]
) -> Listener:
    _remove_stale(path)
    server = await loop.create_unix_server(factory, path, backlog=_BACKLOG, start_serving=False)
    return Listener(server, path, -1)


def _remove_stale(path: str) -> None:
    """Remove the socket that a kill left behind; one that somebody listens on, asyncio would replace unasked."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    if _somebody_listens(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
    return True
