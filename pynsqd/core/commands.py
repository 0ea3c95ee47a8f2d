"""The commands of a V2 client by their names, and those that neither publish nor consume (PROTOCOL 1.3)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pynsqd.core import bodies
from pynsqd.core.consuming import cls, fin, rdy, req, sub, touch
from pynsqd.core.publishing import dpub, mpub, pub
from pynsqd.wire import encoder
from pynsqd.wire.errors import invalid
from pynsqd.wire.identify import answer, negotiate

if TYPE_CHECKING:
    from pynsqd.core.session import Session

# Carries out a command: takes the session, the words of the line and the time in ns. Raises ClientError.
Command = Callable[["Session", list[bytes], int], None]


def identify(session: "Session", params: list[bytes], now_ns: int) -> None:
    """IDENTIFY: what the client is and wants, as JSON in the body."""
    if session.identity.layered:
        raise invalid("cannot IDENTIFY in current state")
    session.expect_body(bodies.IDENTIFY, _identify_body)


def _identify_body(session: "Session", body: bytes, now_ns: int) -> None:
    limits = session.broker.limits
    session.identity = negotiate(body, session.identity, limits)
    session.replies.append(encoder.response(answer(session.identity, limits)))
    session.restart_clock(now_ns)
    if session.identity.layered:
        session.await_upgrade()


def auth(session: "Session", params: list[bytes], now_ns: int) -> None:
    """AUTH: a secret in the body."""
    if len(params) != 1:
        raise invalid("AUTH invalid number of parameters")
    session.expect_body(bodies.AUTH, _auth_body)


def _auth_body(session: "Session", body: bytes, now_ns: int) -> None:
    session.authenticate(body, now_ns)


def nop(session: "Session", params: list[bytes], now_ns: int) -> None:
    """NOP: the answer to a heartbeat."""


COMMANDS: Final[dict[bytes, Command]] = {
    b"IDENTIFY": identify,
    b"AUTH": auth,
    b"SUB": sub,
    b"PUB": pub,
    b"MPUB": mpub,
    b"DPUB": dpub,
    b"RDY": rdy,
    b"FIN": fin,
    b"REQ": req,
    b"TOUCH": touch,
    b"CLS": cls,
    b"NOP": nop,
}
