"""Which command is legal in which state of a V2 session: the whole state machine (PROTOCOL 1.1, 1.3)."""

from typing import Final

from pynsqd.wire.errors import FatalClientError, invalid
from pynsqd.wire.quote import text

# The numbers are those of ``state`` in /stats; 1 and 2 are unused by nsqd too.
UNSECURED: Final = -1  # TLS is required and has not come; what is in this state is not in /stats
INIT: Final = 0
SUBSCRIBED: Final = 3
CLOSING: Final = 4

_ANY: Final = (INIT, SUBSCRIBED, CLOSING)

LEGAL: Final[dict[bytes, tuple[int, ...]]] = {
    b"IDENTIFY": (INIT, UNSECURED),
    b"AUTH": (INIT,),
    b"SUB": (INIT,),
    b"PUB": _ANY,
    b"MPUB": _ANY,
    b"DPUB": _ANY,
    b"RDY": (SUBSCRIBED, CLOSING),
    b"FIN": (SUBSCRIBED, CLOSING),
    b"REQ": (SUBSCRIBED, CLOSING),
    b"TOUCH": (SUBSCRIBED, CLOSING),
    b"CLS": (SUBSCRIBED,),
    b"NOP": _ANY,
}


def illegal(state: int, name: bytes) -> FatalClientError:
    """Return the error for a command that is not legal in ``state``, or never (PROTOCOL 1.2, 1.4)."""
    if state == UNSECURED:
        return invalid(f"cannot {text(name)} in current state (TLS required)")
    if name in LEGAL:
        return invalid(f"cannot {text(name)} in current state")
    return invalid(f"invalid command {text(name)}")
