"""A row of the table: a question, how it is measured, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from load.broker import Broker

# nsqd at its best: nothing spills to its disk queue. Rows where messages wait compare against that.
NSQD_IN_MEMORY = ("--mem-queue-size=10000000",)

Figures = dict[str, float]  # name of the figure, with its unit → value


@dataclass(frozen=True)
class Row:
    """`targets`: per figure, what pynsqd is to reach. `nsqd_flags` go to nsqd only; pynsqd runs by its defaults."""

    question: str
    measure: Callable[[Broker], Figures]
    nsqd_flags: tuple[str, ...] = ()
    targets: Mapping[str, str] = field(default_factory=dict)
