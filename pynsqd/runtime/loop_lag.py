"""How late the event loop is: the sign that a process has more to do than its core can."""

import asyncio
from time import monotonic_ns
from typing import Final

from pynsqd.runtime.metrics import Histogram

_EVERY_NS: Final = 250_000_000


class LoopWatch:
    """Observes four times a second how much later than it should the running loop calls it; until ``close``."""

    def __init__(self, lag: Histogram) -> None:
        self._lag = lag
        self._loop = asyncio.get_running_loop()
        self._begin()

    def _begin(self) -> None:
        self._due_ns = monotonic_ns() + _EVERY_NS
        self._timer = self._loop.call_later(_EVERY_NS / 1e9, self._look)

    def _look(self) -> None:
        self._lag.observe(max(0, monotonic_ns() - self._due_ns))
        self._begin()

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()
