"""The seam to whoever knows what a client with a secret may do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pynsqd.wire.authorization import Grant


@dataclass(frozen=True, slots=True)
class Question:
    """What auth servers are told about a client (PROTOCOL 1.15)."""

    remote_ip: str  # empty on Unix sockets
    tls: bool
    common_name: str  # of the client's certificate
    secret: bytes = field(repr=False)


# Takes the answer, None if there was no valid one, and the time in ns.
Answered = Callable[[Grant | None, int], None]


class Authority(Protocol):
    """Auth servers, as the sessions see them."""

    def ask(self, question: Question, answered: Answered) -> Callable[[], None]:
        """Ask, and call ``answered`` once, in bounded time and not before this has returned.

        Returns a function that gives the question up: nobody waits for the answer any more.
        """
        ...
