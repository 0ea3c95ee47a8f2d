"""What happened, as the clients saw it. Times are ``time.monotonic_ns()``, read in the one process of all clients."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

MS: Final = 1_000_000
SECOND: Final = 1_000_000_000

DELIVERED: Final = "delivered"
FIN: Final = "FIN"
REQ: Final = "REQ"
TOUCH: Final = "TOUCH"


class Outcome(Enum):
    """What became of a command that is answered only when it fails."""

    UNKNOWN = "no receipt"
    DONE = "done"
    FAILED = "refused"


class Finish(Enum):
    """Whether the node still owes a message that was finished."""

    NO = "not finished"
    MAYBE = "finished, and a crash may have undone it"
    SURE = "finished"


@dataclass
class Life:
    """One run of the node, from exec to its end."""

    number: int
    started_ns: int
    listening_ns: int = 0
    ended_ns: int = 0  # just before the signal was sent
    clean: bool = False  # ended by SIGTERM
    lag_ns: int = 0  # the longest time that our own event loop stood still


@dataclass(slots=True, eq=False)
class Publish:
    """One publishing command and its messages."""

    topic: str
    numbers: range
    verb: str
    publisher: str
    life: int
    sent_ns: int
    due_ns: int  # no earlier than this, as the node got it after ``sent_ns``; 0 for a plain message
    acknowledged_ns: int = 0


@dataclass(slots=True, eq=False)
class Event:
    """A delivery, or what a consumer sent about it."""

    life: int
    at_ns: int
    what: str  # DELIVERED, FIN, REQ or TOUCH
    value: int  # attempts of a delivery, milliseconds of a REQ
    consumer: str
    outcome: Outcome = Outcome.UNKNOWN
    outcome_ns: int = 0


@dataclass(slots=True, eq=False)
class Copy:
    """One message in one channel: its whole history, and what is known of it up to the last finished life."""

    publish: Publish
    channel: str
    number: int
    events: list[Event] = field(default_factory=list)
    last: Event | None = None  # the last delivery
    finish: Finish = Finish.NO
    finished: Event | None = None  # the FIN behind ``finish``
    held_until_ns: int = 0  # by a REQ with a delay
    open: bool = True  # not finished, as far as the running life tells

    @property
    def name(self) -> str:
        """Where and which."""
        return f"{self.publish.topic}/{self.channel} message {self.number}"


@dataclass(frozen=True)
class Violation:
    """A promise that was broken. ``kind`` names it, ``text`` has the message's history."""

    kind: str
    text: str


@dataclass
class Tally:
    """Counts for the report. An age is the time from the receipt of a FIN to the kill that undid it."""

    kills: int = 0
    clean_stops: int = 0
    published: int = 0
    acknowledged: int = 0
    settled: int = 0
    deliveries: int = 0
    redeliveries: int = 0
    finished_again: int = 0
    finished_again_oldest_ns: int = 0
    unconfirmed_again: int = 0
    longest_lag_ns: int = 0
    slowest_start_ns: int = 0

    def add(self, other: "Tally") -> None:
        """Sum up; of the oldest and the longest the greater stays."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name.endswith("_ns") else mine + value)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills and {self.clean_stops} clean stops; {self.published} messages published, "
            f"{self.acknowledged} acknowledged; {self.deliveries} deliveries, {self.redeliveries} of them again; "
            f"undone by a kill: {self.finished_again} confirmed FINs (oldest {self.finished_again_oldest_ns / MS:.0f} "
            f"ms before it); {self.unconfirmed_again} FINs without a receipt came "
            f"again; {self.settled} messages seen through to their end in every channel; our own loop stood still for "
            f"{self.longest_lag_ns / MS:.0f} ms at most; the slowest start took {self.slowest_start_ns / SECOND:.1f} s"
        )
