"""The node's side of lookupd: registered with every one of them, all the time (PROTOCOL 5.3).

One task per lookupd address: connect, IDENTIFY, REGISTER all there is, then every change at once and a PING every 15 s.
nsqd repairs a lost connection at the second PING; here it is repaired at once, with a capped back-off (DEVIATIONS).
Nothing that a lookupd says or does not say can do more than end its own connection.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import ByteStream, TaskGroup, TaskStatus

from pynsqd.core.changes import Change
from pynsqd.wire.constants import MAGIC_V1
from pynsqd.wire.errors import NsqError
from pynsqd.wire.lookup_v1 import Inbox, MalformedInput, PeerInfo, command, parse_peer_info, sized
from pynsqd.wire.names import is_ephemeral, is_valid_name

if TYPE_CHECKING:
    import aiohttp
    from structlog.typing import FilteringBoundLogger

# nsqd's deadlines for a connection, and for every read and write on it.
_CONNECT_TIMEOUT_S: Final = 1.0
_ANSWER_TIMEOUT_S: Final = 1.0
_LEAVE_TIMEOUT_S: Final = 1.0
_MAX_ANSWER: Final = 5242880  # nsqd's default of --max-body-size
# So many commands go out before their answers are read; neither fills a socket's buffers.
_PIPELINE: Final = 500
_BACK_OFF_S: Final = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_SHOWN: Final = 255  # characters in the log of what a lookupd says, as many as the longest name of a host
# A lookupd that stays away, or flaps, is worth this many lines in the log.
_LOUD_FAILURES: Final = 5

_PING: Final = command("PING")
_VERBS: Final = {
    "topic_created": "REGISTER",
    "channel_created": "REGISTER",
    "topic_deleted": "UNREGISTER",
    "channel_deleted": "UNREGISTER",
}
_CONNECTION_ERRORS: Final = (OSError, ValueError, anyio.EndOfStream, anyio.BrokenResourceError, NsqError)

Registrations = Callable[[], Iterable[tuple[str, str]]]


class _Peer:
    """The connection to one lookupd, made again whenever it is lost."""

    def __init__(
        self,
        address: str,
        registrations: Registrations,
        identify: bytes,
        log: FilteringBoundLogger,
        ping_interval_s: float,
    ) -> None:
        self.info: PeerInfo | None = None  # what it said about itself; kept while it is away, as nsqd does
        self.http_failing = False
        self.tried = anyio.Event()  # the first attempt has succeeded or failed
        self.finished = anyio.Event()
        self._address = address
        self._registrations = registrations
        self._identify = identify
        self._log = log.bind(lookupd=address)
        self._ping_interval_s = ping_interval_s
        self._commands: deque[bytes] | None = None  # to be sent; None while there is no connection to send them on
        self._leaving = False
        self._failures = 0
        self._inbox = Inbox()
        self._scope = anyio.CancelScope()
        self._idle: anyio.CancelScope | None = None

    @property
    def connected(self) -> bool:
        """Whether it is told what changes, now."""
        return self._commands is not None

    async def run(self) -> None:
        """Stay connected until ``leave`` or ``stop``."""
        try:
            with self._scope:
                while not self._leaving:
                    await anyio.sleep(_BACK_OFF_S[min(self._failures, len(_BACK_OFF_S) - 1)])
                    await self._connect()
        finally:
            self.tried.set()
            self.finished.set()

    async def _connect(self) -> None:
        """Connect once, and stay connected as long as it goes."""
        try:
            await self._stay_connected()
        except _CONNECTION_ERRORS as error:
            self._failures += 1
            warn = self._log.warning if self._failures <= _LOUD_FAILURES else self._log.debug
            warn("no connection to lookupd", error=str(error) or type(error).__name__)
        finally:
            self._commands = None
            self.tried.set()

    def announce(self, line: bytes) -> None:
        """Send a command soon; without a connection there is no need, for the next one begins with all there is."""
        if self._commands is not None:
            self._commands.append(line)
            if self._idle is not None:
                self._idle.cancel()

    def leave(self) -> None:
        """Take back all registrations, then close; without a connection stop at once."""
        self._leaving = True
        if self._commands is None:
            self.stop()
            return
        registered = list(self._registrations())
        for topic, channel in registered:
            if channel:
                self.announce(command("UNREGISTER", topic, channel))
        for topic in dict.fromkeys(topic for topic, _ in registered):
            self.announce(command("UNREGISTER", topic))
        if self._idle is not None:
            self._idle.cancel()

    def stop(self) -> None:
        """Close without a word."""
        self._scope.cancel()

    async def _stay_connected(self) -> None:
        host, port = _split_address(self._address)
        with anyio.fail_after(_CONNECT_TIMEOUT_S):
            stream = await anyio.connect_tcp(host, port)
        async with stream:
            self._inbox = Inbox()
            (answer,) = await self._exchange(stream, [MAGIC_V1 + self._identify])
            self.info = parse_peer_info(answer, self._address)
            self.tried.set()
            tell = self._log.info if self._failures <= _LOUD_FAILURES else self._log.debug
            tell("connected to lookupd", broadcast_address=self.info.broadcast_address[:_SHOWN])
            self._commands = deque(command("REGISTER", *names) for names in self._registrations())
            await self._keep_informed(stream, self._commands)

    async def _keep_informed(self, stream: ByteStream, commands: deque[bytes]) -> None:
        """Send commands as they come, and PINGs, until this side leaves."""
        next_ping = anyio.current_time() + self._ping_interval_s
        while True:
            if anyio.current_time() >= next_ping:
                await self._exchange(stream, [_PING])
                next_ping = anyio.current_time() + self._ping_interval_s
                self._settle()
            elif commands:
                await self._exchange(stream, [commands.popleft() for _ in range(min(len(commands), _PIPELINE))])
            elif self._leaving:
                return
            else:
                await self._wait(stream, next_ping)

    async def _exchange(self, stream: ByteStream, commands: list[bytes]) -> list[bytes]:
        """Send commands and return their answers; an error ends the connection on lookupd's side, so also here."""
        with anyio.fail_after(_ANSWER_TIMEOUT_S):
            await stream.send(b"".join(commands))
        answers = [await self._answer(stream) for _ in commands]
        for answer in answers:
            if answer.startswith(b"E_"):
                raise NsqError(answer[:200].decode("utf-8", "replace"))
        if len(self._inbox):
            raise MalformedInput("an answer to no question")
        return answers

    async def _answer(self, stream: ByteStream) -> bytes:
        answer = self._inbox.sized(_MAX_ANSWER)
        if answer is None:
            with anyio.fail_after(_ANSWER_TIMEOUT_S):
                while (answer := self._inbox.sized(_MAX_ANSWER)) is None:
                    self._inbox.feed(await stream.receive())
        return answer

    async def _wait(self, stream: ByteStream, deadline: float) -> None:
        """Wait for a command to send, and notice at once when the connection ends."""
        with anyio.CancelScope(deadline=deadline) as scope:
            self._idle = scope
            try:
                await stream.receive()
                raise MalformedInput("an answer to no question")
            finally:
                self._idle = None

    def _settle(self) -> None:
        """Take a PING that is answered as the end of all troubles."""
        if self._failures > _LOUD_FAILURES:
            self._log.info("connected to lookupd again")
        self._failures = 0


class LookupPeers:
    """All lookupds that the node knows."""

    def __init__(
        self,
        registrations: Registrations,
        identity: dict[str, object],
        log: FilteringBoundLogger,
        *,
        connect_timeout_ns: int,
        request_timeout_ns: int,
        ping_interval_ns: int = 15_000_000_000,
    ) -> None:
        """Prepare; nothing happens before ``run``.

        Args:
            registrations: gives what exists now, as (topic, channel); a topic without channels as (topic, "").
            identity: the body of IDENTIFY: version, broadcast_address, hostname, http_port, tcp_port.
            log: where the coming and going of lookupds is noted.
            connect_timeout_ns: for HTTP, --http-client-connect-timeout.
            request_timeout_ns: for HTTP, --http-client-request-timeout.
            ping_interval_ns: how often a lookupd is told that the node lives.
        """
        self._registrations = registrations
        self._identify = command("IDENTIFY") + sized(
            json.dumps(identity, separators=(",", ":"), sort_keys=True).encode()
        )
        self._log = log
        self._connect_timeout_s = connect_timeout_ns / 1e9
        self._request_timeout_s = request_timeout_ns / 1e9
        self._ping_interval_s = ping_interval_ns / 1e9
        self._peers: dict[str, _Peer] = {}
        self._tasks: TaskGroup | None = None
        self._http: aiohttp.ClientSession | None = None
        self._http_wanted = anyio.Event()
        self._http_ready = anyio.Event()
        self._left = False
        self._closed = anyio.Event()

    async def run(self, addresses: Iterable[str], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Stay connected to all of ``addresses`` (host:port) until ``close``; does not wait for them to start."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self.set_addresses(addresses)
                self._tasks.start_soon(self._load_http)
                task_status.started()
                await self._closed.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            if self._http is not None:
                with anyio.CancelScope(shield=True):
                    await self._http.close()

    def set_addresses(self, addresses: Iterable[str]) -> None:
        """Close the connections that are not wanted any more and make the new ones. Only while ``run`` runs."""
        if self._tasks is None or self._left:
            return
        wanted = dict.fromkeys(addresses)
        for address in self._peers.keys() - wanted.keys():
            self._peers.pop(address).stop()
        for address in wanted:
            if address not in self._peers:
                peer = _Peer(address, self._registrations, self._identify, self._log, self._ping_interval_s)
                self._peers[address] = peer
                self._tasks.start_soon(peer.run)
                self._http_wanted.set()

    def notify(self, change: Change) -> None:
        """Tell every lookupd about a topic or channel that came or went."""
        verb = _VERBS.get(change.kind)
        if verb is not None:
            line = command(verb, change.topic, change.channel)
            for peer in self._peers.values():
                peer.announce(line)

    async def channels(self, topic: str) -> list[str]:
        """Ask every lookupd that has identified itself for the channels of ``topic``; all that last, sorted.

        Takes no longer than the request timeout, or a first connection that is still being made. A lookupd that fails
        is logged and counts as knowing none.
        """
        found: set[str] = set()
        async with anyio.create_task_group() as tasks:
            for peer in self._peers.values():
                tasks.start_soon(self._ask_peer, peer, topic, found)
        return sorted(name for name in found if is_valid_name(name) and not is_ephemeral(name))

    async def _ask_peer(self, peer: _Peer, topic: str, found: set[str]) -> None:
        await peer.tried.wait()
        await self._http_ready.wait()
        if peer.info is None:
            return
        try:
            found.update(await self._ask_channels(peer.info, topic))
            peer.http_failing = False
        except (OSError, ValueError, RecursionError) as error:
            if not peer.http_failing:
                text = str(error)[:_SHOWN] or type(error).__name__
                self._log.warning("lookupd did not tell channels", lookupd=peer.info.remote_address, error=text)
            peer.http_failing = True

    async def _ask_channels(self, info: PeerInfo, topic: str) -> list[str]:
        import aiohttp  # noqa: PLC0415  loaded by _load_http
        import yarl  # noqa: PLC0415

        if self._http is None or not 0 < info.http_port < 65536:
            raise ValueError(f"no HTTP at port {info.http_port}")
        host, port = info.broadcast_address, info.http_port
        url = yarl.URL.build(scheme="http", host=host, port=port, path="/channels", query={"topic": topic})
        body = bytearray()
        try:
            async with self._http.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise ValueError(f"HTTP status {response.status}")
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _MAX_ANSWER:
                        raise ValueError(f"the answer is longer than {_MAX_ANSWER} bytes")
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error
        answer = json.loads(body)
        names = answer.get("channels") if isinstance(answer, dict) else None
        if not isinstance(names, list):
            raise ValueError("the answer has no channels")
        return [name for name in names if isinstance(name, str)]

    async def _load_http(self) -> None:
        """Import aiohttp once the first lookupds know the node; off the loop, which must not stand still for it."""
        await self._http_wanted.wait()
        for peer in list(self._peers.values()):
            await peer.tried.wait()
        await anyio.to_thread.run_sync(import_module, "aiohttp")
        import aiohttp  # noqa: PLC0415

        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=8),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/vnd.nsq; version=1.0"},
            timeout=aiohttp.ClientTimeout(total=self._request_timeout_s, sock_connect=self._connect_timeout_s),
        )
        self._http_ready.set()

    def connected(self) -> dict[str, bool]:
        """Tell of each address whether its lookupd is connected."""
        return {address: peer.connected for address, peer in self._peers.items()}

    async def leave(self) -> None:
        """Take back all registrations and stay away; ``channels`` can still be asked. Takes a second at most."""
        self._left = True
        for peer in self._peers.values():
            peer.leave()
        with anyio.move_on_after(_LEAVE_TIMEOUT_S):
            for peer in self._peers.values():
                await peer.finished.wait()

    async def close(self) -> None:
        """Leave, if that is still to be done, and let ``run`` end."""
        if not self._left:
            await self.leave()
        self._closed.set()


def _split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)
