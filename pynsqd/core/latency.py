"""End-to-end latency (publish to FIN) over a sliding window, in constant memory (PROTOCOL 3.9)."""

from math import ceil, log
from typing import Final

# Buckets grow by 2 %, so a percentile is off by 1 % at most: nsqd's sketch promises the same.
_GROWTH: Final = log(1.02)


class LatencyWindow:
    """A histogram in two halves that take turns, each holding one half of the window."""

    __slots__ = ("_current", "_half_ns", "_previous", "_turn_ns")

    def __init__(self, window_ns: int, now_ns: int) -> None:
        self._half_ns = max(window_ns // 2, 1)
        self._turn_ns = now_ns + self._half_ns
        self._current: dict[int, int] = {}
        self._previous: dict[int, int] = {}

    def add(self, latency_ns: int, now_ns: int) -> None:
        """Count one finished message."""
        self._rotate(now_ns)
        bucket = int(log(latency_ns) / _GROWTH) if latency_ns > 1 else 0
        self._current[bucket] = self._current.get(bucket, 0) + 1

    def buckets(self, now_ns: int) -> dict[int, int]:
        """Return bucket to count over the whole window; sums of these merge channels into a topic."""
        self._rotate(now_ns)
        return merge([self._previous, self._current])

    def _rotate(self, now_ns: int) -> None:
        if now_ns < self._turn_ns:
            return
        stale = now_ns >= self._turn_ns + self._half_ns
        self._previous = {} if stale else self._current
        self._current = {}
        self._turn_ns = now_ns + self._half_ns


def merge(parts: list[dict[int, int]]) -> dict[int, int]:
    """Add histograms up."""
    total: dict[int, int] = {}
    for part in parts:
        for bucket, count in part.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile_ns(buckets: dict[int, int], quantile: float) -> float:
    """Return the latency in ns below which the share ``quantile`` of the samples lies; 0 without samples."""
    rank = ceil(sum(buckets.values()) * quantile)
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0:
            return float(1.02 ** (bucket + 0.5))
    return 0.0
