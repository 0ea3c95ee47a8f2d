"""Prometheus' text format, and the figures of the process that both daemons show in it.

A ``Page`` gathers samples in any order and prints them by metric, as the format wants it:

    page = Page()
    page.add(TOPICS, len(topics))
    page.add(DEPTH, 7, labels(topic="t"))
    page.text()
"""

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from pynsqd.runtime.memory import resident_bytes
from pynsqd.runtime.version import product_version, python_version
from pynsqd.wire.constants import NSQ_VERSION

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """What a metric is called and means. A counter's name ends in ``_total``; times are seconds, sizes bytes."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that its samples have."""
        ends = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.name + end for end in ends)


class Histogram:
    """Counts times by their powers of two in ns, from 4 µs to 17 s. One thread at a time may observe.

    An observation takes 0.15 µs; looking for rounder bounds would take twice that.
    """

    __slots__ = ("_counts", "_sum_ns")

    _LOWEST: Final = 12  # everything below 2**12 ns is in the first bucket
    _HIGHEST: Final = 34

    def __init__(self) -> None:
        self._counts = [0] * 65  # by bit length
        self._sum_ns = 0

    def observe(self, time_ns: int) -> None:
        """Count ``time_ns``, which is not negative and below 2**64."""
        self._counts[time_ns.bit_length()] += 1
        self._sum_ns += time_ns

    def samples(self) -> Iterator[tuple[str, float]]:
        """Yield what a page shows: the end of the name with the labels, and the value."""
        counts, sum_ns = list(self._counts), self._sum_ns
        total = sum(counts[: self._LOWEST])
        for bits in range(self._LOWEST, self._HIGHEST + 1):
            total += counts[bits]
            yield f'_bucket{{le="{2**bits / 1e9!r}"}}', total
        yield '_bucket{le="+Inf"}', sum(counts)
        yield "_sum", sum_ns / 1e9
        yield "_count", sum(counts)


def labels(**values: str) -> str:
    """Return labels as they stand behind a name."""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items()) + "}"


class Page:
    """The samples of one scrape."""

    def __init__(self) -> None:
        self._lines: dict[Metric, list[str]] = {}

    def add(self, metric: Metric, value: float, labelled: str = "") -> None:
        """Add a sample; ``labelled`` are its ``labels``."""
        lines = self._lines.get(metric)
        if lines is None:
            lines = self._lines[metric] = [f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"]
        lines.append(f"{metric.name}{labelled} {value!r}\n")

    def add_histogram(self, metric: Metric, histogram: Histogram) -> None:
        """Add a histogram."""
        lines = [f"{metric.name}{end} {value!r}\n" for end, value in histogram.samples()]
        self._lines[metric] = [f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n", *lines]

    def text(self) -> str:
        """Return the page."""
        return "".join("".join(lines) for lines in self._lines.values())


# ---- the process


PROCESS: Final = (
    CPU := Metric("process_cpu_seconds_total", "counter", "Processor time used, user and system."),
    STARTED := Metric("process_start_time_seconds", "gauge", "When the daemon started, in seconds since the epoch."),
    RESIDENT := Metric("process_resident_memory_bytes", "gauge", "Memory in use."),
    OPEN_FILES := Metric("process_open_fds", "gauge", "Open files and sockets."),
    MAX_FILES := Metric("process_max_fds", "gauge", "How many files and sockets may be open."),
)


def add_process(page: Page, started_ns: int) -> None:
    """Add the metrics in ``PROCESS``; ``started_ns`` is the time of day when the daemon started."""
    page.add(CPU, time.process_time())
    page.add(STARTED, started_ns / 1e9)
    page.add(RESIDENT, resident_bytes())
    page.add(MAX_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    try:
        page.add(OPEN_FILES, len(os.listdir("/proc/self/fd")) - 1)  # the listing itself is one
    except OSError:  # no /proc: then it is not known
        return


def add_build(page: Page, metric: Metric) -> None:
    """Add the metric that is always 1 and tells versions by its labels."""
    page.add(metric, 1, labels(version=product_version(), nsqd_version=NSQ_VERSION, python=python_version()))
