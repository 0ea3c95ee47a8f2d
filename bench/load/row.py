"""A row of the table: a question, how it is measured, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from load.broker import NSQD, PYNSQD, Broker, Peer

# nsqd at its best: nothing spills to its disk queue. Rows where messages wait compare against that.
NSQD_IN_MEMORY = ("--mem-queue-size=10000000",)
# nsqd's nearest to a log: what waits goes through its disk queue.
NSQD_ON_DISK = ("--mem-queue-size=1",)

Figures = dict[str, float]  # name of the figure, with its unit → value
PEERS = (NSQD, PYNSQD)


@dataclass(frozen=True)
class Row:
    """`targets`: per figure, what pynsqd is to reach. `nsqd_flags` go to nsqd only; pynsqd runs by its defaults unless
    the row is about one of its flags. `peers` is for rows that compare something else than nsqd and pynsqd. Rows of one
    `section` with the same peers share a table. `at_most` makes the same row of no more than that many messages, where
    they are so many that trying it takes long. `common_flags` gives what every peer needs and is made for the run."""

    question: str
    measure: Callable[[Broker], Figures]
    nsqd_flags: tuple[str, ...] = ()
    pynsqd_flags: tuple[str, ...] = ()
    targets: Mapping[str, str] = field(default_factory=dict)
    peers: tuple[Peer, ...] = PEERS
    section: str = ""
    at_most: Callable[[int], Row] | None = None
    common_flags: Callable[[], tuple[str, ...]] = tuple

    def flags(self, peer: Peer) -> tuple[str, ...]:
        """What this peer is started with for this row."""
        return {"nsqd": self.nsqd_flags, "pynsqd": self.pynsqd_flags}[peer.name]
