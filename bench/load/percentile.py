"""Percentiles of measured times."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles


def percentile_ms(values_ns: Sequence[int], percent: int) -> float:
    """The percentile in ms of values in ns."""
    return quantiles(values_ns, n=100)[percent - 1] / 1e6
