"""Listening sockets: TCP host:port, or a path for a Unix socket (PROTOCOL 4.1, PROCESS 10)."""

import asyncio
import errno
import os
import resource
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pynsqd.runtime.seldom import Seldom
from pynsqd.wire.errors import StartupError

# Short connections come in crowds (a PHP request each); the kernel caps this at somaxconn.
_BACKLOG: Final = 4096
# So many servers share the socket, and each takes one connection in a round of the loop (libuv never takes more, and
# asyncio has no brake in between when descriptors run out). With one, clients with a connection each never share a
# turn: a POST costs 71 µs of CPU instead of 46.
_AT_ONCE: Final = 4
# File descriptors that are left to the files of the node. Whether they are reached is looked at every so often.
_RESERVE: Final = 64
_LOOK_EVERY: Final = 8
_PAUSE_S: Final = 1.0
# As Go's listeners: a peer that vanished without a word is noticed after some two and a half minutes, also where no
# heartbeat or timeout would. The kernel's own figures make it two hours.
_KEEPALIVE_S: Final = 15
_KEEPALIVE_PROBES: Final = 9
# Nobody but ``Listener.close`` removes the file of a Unix socket.
_KEEP_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


def raise_file_limit() -> None:
    """Let this process have as many files open as it may, as a program in Go does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Listener:
    """A bound socket. It does not accept before ``start``, nor while file descriptors are scarce: then who comes
    waits in the kernel's queue.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        port: int,
        factory: Callable[[], asyncio.BaseProtocol],
        warn: Callable[..., object],
    ) -> None:
        """Take a bound socket, its address as it is printed, and its port; -1 for that of a Unix socket."""
        self.address = address
        self.port = port
        self._socket = sock
        self._file = _identity(address) if port < 0 else None
        self._factory = factory
        self._warn = Seldom(warn)
        self._servers: list[asyncio.Server] = []
        self._made = 0
        self._resuming: asyncio.TimerHandle | asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Begin to accept; no further if it has to pause meanwhile."""
        while len(self._servers) < _AT_ONCE and not self._closed and self._resuming is None:
            server = await self._serve()
            self._servers.append(server)
            if not self._closed:
                await server.start_serving()
            if self._closed:
                self._end_servers()
            else:
                self._socket.listen(_BACKLOG)

    async def _serve(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        sock = self._socket.dup()  # a server closes its own; this one keeps those who wait
        settings: dict[str, Any] = {"sock": sock, "backlog": 1, "start_serving": False}
        if self.port < 0:
            return await loop.create_unix_server(self._make, **settings, **_KEEP_FILE)
        return await loop.create_server(self._make, **settings)

    def _end_servers(self) -> None:
        servers, self._servers = self._servers, []
        _end(servers)

    def close(self) -> None:
        """Accept no more, and leave no file behind."""
        self._closed = True
        if self._resuming is not None:
            self._resuming.cancel()
        self._end_servers()
        self._socket.close()
        if self._file is not None and _identity(self.address) == self._file:
            os.unlink(self.address)
            self._file = None

    def _make(self) -> asyncio.BaseProtocol:
        self._made += 1
        if not self._made % _LOOK_EVERY and self._resuming is None and self._scarce():
            loop = asyncio.get_running_loop()
            loop.call_soon(self._pause)
            self._resuming = loop.call_later(_PAUSE_S, self._look_again)
        return self._factory()

    def _scarce(self) -> bool:
        """Tell whether hardly any file descriptors are left: a new one is the lowest that is free."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            lowest = os.dup(self._socket.fileno())
        except OSError:
            return True
        os.close(lowest)
        return lowest >= limit - min(_RESERVE, limit // 4)

    def _pause(self) -> None:
        if not self._servers:
            return
        loop = asyncio.get_running_loop()
        if all(loop.remove_reader(server.sockets[0].fileno()) for server in self._servers):
            servers, self._servers = self._servers, []
            loop.call_later(_PAUSE_S / 2, _end, servers)  # asyncio resets what it is accepting at a close
        else:
            self._end_servers()
        self._warn("file descriptors are running out, new connections wait", address=self.address)

    def _look_again(self) -> None:
        loop = asyncio.get_running_loop()
        if self._scarce():
            self._resuming = loop.call_later(_PAUSE_S, self._look_again)
        else:
            self._resuming = loop.create_task(self._resume())

    async def _resume(self) -> None:
        self._resuming = None
        try:
            await self.start()
        except OSError:  # somebody was quicker
            self._resuming = asyncio.get_running_loop().call_later(_PAUSE_S, self._look_again)


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


async def listen(
    address: str,
    factory: Callable[[], asyncio.BaseProtocol],
    warn: Callable[..., object] = lambda text, **more: None,
) -> Listener:
    """Bind ``address``; ``Listener.start`` begins to accept, and ``warn`` is told when it has to pause.

    Raises StartupError.
    """
    parts = split_address(address)
    try:
        if parts is None:
            sock = _bind_unix(address)
            return Listener(sock, address, -1, factory, warn)
        host, port = parts
        sock = _bind(_resolve(host), port)
    except OSError as error:
        raise StartupError(f"listen ({address}) failed - {error.strerror or error}") from None
    except UnicodeError:  # what the resolver says to a name that cannot be one
        raise StartupError(f"listen ({address}) failed - invalid host name") from None
    bound = sock.getsockname()
    shown = f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"
    return Listener(sock, shown, bound[1], factory, warn)


def _end(servers: list[asyncio.Server]) -> None:
    for server in servers:
        server.close()


def _bind(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _keep_alive(sock)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _keep_alive(sock: socket.socket) -> None:
    """Have the kernel ask silent peers whether they are there; accepted sockets inherit it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def _resolve(host: str) -> str:
    """Name one address: with port 0 each address of a name would get a port of its own."""
    if not host:
        return "0.0.0.0"  # noqa: S104 - what an address without a host means in Go
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at ``path`` from others, None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
