"""The markdown table: medians of the rounds, ratios of the paired rounds, and what it was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from statistics import median
from typing import Final

from load.row import Figures, Row

NONE: Final = "-"


@dataclass
class Measured:
    """What the rounds of one row gave: per broker one entry a round, and why figures are missing."""

    row: Row
    columns: list[str]
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def table(brokers: Sequence[str], measured: Sequence[Measured]) -> Iterator[str]:
    """The lines of the table. The ratio is the second broker's figure over the first one's in the same round."""
    pair = len(brokers) == 2
    complete = all(len(brokers) == len(one.row.peers) for one in measured)  # or the ratios to reach make no sense
    head = ["question", "figure", *brokers, *["ratio (lowest to highest)"] * pair, *["to reach"] * complete]
    yield _line(head)
    yield _line(["---"] * 2 + ["---:"] * (len(head) - 2))
    for one in measured:
        question = one.row.question
        for name in _figure_names(one):
            values = [[figures[name] for figures in one.rounds.get(broker, ())] for broker in brokers]
            cells = [_number(median(of_one)) if of_one else NONE for of_one in values]
            if pair:
                about_broker = not name.endswith(", cores")  # the rest is there to judge the measurement by
                cells.append(_ratio(*values) if about_broker else NONE)
            if complete:
                cells.append(one.row.targets.get(name, ""))
            yield _line([question, name, *cells])
            question = ""
        if not _figure_names(one):
            yield _line([question, *[NONE] * (len(head) - 1)])
    notes = [f"- {one.row.question}: {reason}" for one in measured for reason in one.missing]
    if notes:
        yield from ["", "Missing:", "", *notes]


def machine() -> str:
    """Processor, cores, memory, kernel and the Python that runs the load."""
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def _figure_names(measured: Measured) -> list[str]:
    return list(dict.fromkeys(name for rounds in measured.rounds.values() for figures in rounds for name in figures))


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = sorted(second / first for first, second in zip(ours, theirs, strict=False) if first)
    return f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else NONE


def _number(value: float) -> str:
    if isnan(value):  # the broker's process is out of reach
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
