"""A V2 client on a node with auth servers: AUTH, and what it allows (PROTOCOL 1.4, 1.15).

Sessions of a node without auth servers know nothing of this, and pay nothing for it.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from pynsqd.core.authority import Authority, Question
from pynsqd.core.peer import Peer
from pynsqd.core.session import Session
from pynsqd.wire import encoder
from pynsqd.wire.authorization import Grant
from pynsqd.wire.decoder import Decoder
from pynsqd.wire.errors import E_AUTH_FAILED, E_AUTH_FIRST, E_UNAUTHORIZED, FatalClientError, invalid

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.topic import Topic

_CHECKED: Final = (b"PUB", b"MPUB", b"DPUB", b"SUB")


class _Asking(Exception):
    """The command waits for an auth server, and so do those after it."""


class GuardedSession(Session):
    """Asks the authority at AUTH, and again at the first checked command after the answer has expired.

    While it waits nothing more is read: what has come stays with the decoder, the rest in the client's socket.
    """

    __slots__ = ("_again", "_allowed", "_authority", "_ended", "_expires_ns", "_give_up", "_secret")

    def __init__(self, broker: "Broker", peer: Peer, remote_address: str, now_ns: int, authority: Authority) -> None:
        super().__init__(broker, peer, remote_address, now_ns)
        self.topics = {}  # each publish has to ask ``topic``
        self._authority = authority
        self._secret = b""
        self._expires_ns = 0
        self._allowed: set[tuple[str, str]] = set()  # topics and channels that were found to be
        self._again: Callable[[int], None] | None = None  # how the command that waited goes on
        self._give_up: Callable[[], None] | None = None  # while it waits
        self._ended = False  # the peer sent its last byte while the session waited

    def authenticate(self, secret: bytes, now_ns: int) -> None:
        """Ask what the client with that secret may do."""
        if self._secret:
            raise invalid("AUTH already set")
        self._secret = secret
        self._ask(self._welcome)

    def _welcome(self, now_ns: int) -> None:
        if self.grant is None:
            raise FatalClientError(E_AUTH_FAILED, "AUTH failed")
        if not self.grant.authorizations:
            raise FatalClientError(E_UNAUTHORIZED, "AUTH no authorizations found")
        self.replies.append(encoder.response(self.grant.response()))

    def topic(self, name: str, verb: str, channel: str = "") -> "Topic":
        """Return the topic if the client may use it. Raises FatalClientError."""
        if not self._secret:
            raise FatalClientError(E_AUTH_FIRST, f"AUTH required before {verb}")
        if self.grant is None:
            raise FatalClientError(E_AUTH_FAILED, "AUTH failed")
        if (name, channel) not in self._allowed:
            if not self.grant.allows(name, channel):
                raise FatalClientError(E_UNAUTHORIZED, f'AUTH failed for {verb} on "{name}" "{channel}"')
            self._allowed.add((name, channel))
        return super().topic(name, verb, channel)

    # -- waiting -------------------------------------------------------------------------------------------------

    def _command(self, line: bytes, now_ns: int) -> None:
        if now_ns >= self._expires_ns and self.grant is not None and line.partition(b" ")[0] in _CHECKED:
            self._ask(partial(super()._command, line))
        super()._command(line, now_ns)

    def _ask(self, then: Callable[[int], None]) -> None:
        assert self._peer is not None  # noqa: S101 - there is somebody who sent the command
        self._again = then
        remote_ip = "" if self.remote_address == "@" else self.remote_address.rpartition(":")[0].strip("[]")
        security = self.security
        question = Question(remote_ip, security is not None, security.common_name if security else "", self._secret)
        self._peer.pause_reading()
        self._give_up = self._authority.ask(question, self._answered)
        raise _Asking

    def _answered(self, grant: Grant | None, now_ns: int) -> None:
        self._give_up = None
        self.grant = grant
        self._allowed.clear()
        if grant is not None:
            self._expires_ns = now_ns + grant.ttl_s * 1_000_000_000
        self.deadlines.put_off(now_ns)
        self.receive(b"", now_ns)
        if self._give_up is None and self._peer is not None:
            if self._ended:
                self.eof()
            self._peer.resume_reading()
            if self._upgrading:  # an IDENTIFY that had waited; now its upgrade is waited for
                self._peer.pause_reading()

    def _run(self, decoder: Decoder, now_ns: int) -> bool:
        if self._again is not None:
            again, self._again = self._again, None
            again(now_ns)
        return super()._run(decoder, now_ns)

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take bytes from the peer; while the session waits they are only kept."""
        if self._give_up is not None:
            self.decoder.feed(data)
            return
        with suppress(_Asking):
            super().receive(data, now_ns)

    def eof(self) -> None:
        """Remember that there will be no more, until what has come is carried out."""
        if self._give_up is not None:
            self._ended = True
        else:
            super().eof()

    def _on_timer(self, now_ns: int) -> int:
        if self._give_up is not None:  # it is not the peer who is late
            self.deadlines.put_off(now_ns)
        return super()._on_timer(now_ns)

    def closed(self) -> None:
        """The connection is gone: nobody waits for the auth server any more."""
        if self._give_up is not None:
            self._give_up()
        super().closed()
