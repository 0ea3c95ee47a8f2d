"""The commands that carry a body: what its size may be, and the words of what can be wrong with it (PROTOCOL 1.4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pynsqd.options import Options
from pynsqd.wire.errors import E_BAD_BODY, E_BAD_MESSAGE, FatalClientError

if TYPE_CHECKING:
    from pynsqd.core.session import Session

# Takes the body of a command: the session, the body, the time in ns.
TakeBody = Callable[["Session", bytes, int], None]


@dataclass(frozen=True, slots=True)
class BodyRule:
    """How one command's body is bounded and named in its errors."""

    verb: str
    code: str
    size_name: str
    body_name: str

    def check(self, size: int, options: Options) -> None:
        """Raise FatalClientError unless ``size`` bytes are allowed."""
        if self.code == E_BAD_MESSAGE:
            if size <= 0:
                raise FatalClientError(self.code, f"{self.verb} invalid message body size {size}")
            if size > options.max_msg_size:
                raise FatalClientError(self.code, f"{self.verb} message too big {size} > {options.max_msg_size}")
        elif size > options.max_body_size:
            raise FatalClientError(self.code, f"{self.verb} body too big {size} > {options.max_body_size}")
        elif size <= 0:
            raise FatalClientError(self.code, f"{self.verb} invalid body size {size}")

    def cut_short(self, size: int, arrived: int, left: int) -> FatalClientError:
        """Return the error for a body that will not come whole.

        ``size`` is its declared size in bytes, -1 if even that is missing; ``arrived`` how many messages of an MPUB
        have come, -1 if not even their number, and ``left`` how many bytes behind them.
        """
        if size < 0:
            return FatalClientError(self.code, f"{self.verb} failed to read {self.size_name}")
        if self is not MPUB:
            return FatalClientError(self.code, f"{self.verb} failed to read {self.body_name}")
        if arrived < 0:
            return FatalClientError(E_BAD_BODY, "MPUB failed to read message count")
        if left < 4:
            return FatalClientError(E_BAD_MESSAGE, f"MPUB failed to read message({arrived}) body size")
        return FatalClientError(E_BAD_MESSAGE, "MPUB failed to read message body")


IDENTIFY: Final = BodyRule("IDENTIFY", E_BAD_BODY, "body size", "body")
AUTH: Final = BodyRule("AUTH", E_BAD_BODY, "body size", "body")
PUB: Final = BodyRule("PUB", E_BAD_MESSAGE, "message body size", "message body")
DPUB: Final = BodyRule("DPUB", E_BAD_MESSAGE, "message body size", "message body")
MPUB: Final = BodyRule("MPUB", E_BAD_BODY, "body size", "body")
