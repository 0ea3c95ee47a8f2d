"""Due times of the broker, nearest first; ``run(now)`` does what is due. One clock timer serves the whole node."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

# Later than anything.
NEVER: Final = 1 << 63


class Timer:
    """One owner's wake-up. Its callback takes now in ns and returns the next due time in ns, 0 for none."""

    __slots__ = ("callback", "due_ns")

    def __init__(self, callback: Callable[[int], int]) -> None:
        self.callback: Callable[[int], int] | None = callback
        self.due_ns = 0


class Timers:
    """A heap of due times. An entry whose timer has moved or was cancelled is dropped when it comes up.

    ``earliest_ns`` is when ``run`` is wanted next. It is kept and not asked for: a turn looks at it twice, which by
    two calls took 0.2 µs more.
    """

    __slots__ = ("_heap", "_serial", "earliest_ns")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._serial = 0  # ties go in the order of scheduling, and timers need no ordering of their own
        self.earliest_ns = NEVER

    def schedule(self, timer: Timer, due_ns: int) -> None:
        """Wake ``timer`` at ``due_ns`` at the latest; an earlier time that was set stays."""
        if timer.callback is None or 0 < timer.due_ns <= due_ns:
            return
        timer.due_ns = due_ns
        self._serial += 1
        heappush(self._heap, (due_ns, self._serial, timer))
        self.earliest_ns = self._heap[0][0]

    def cancel(self, timer: Timer) -> None:
        """Never wake ``timer`` again and let go of its owner now, although the entry stays until it is due."""
        timer.callback = None
        timer.due_ns = 0
        self._find_earliest()

    @property
    def next_due_ns(self) -> int:
        """When ``run`` is wanted next, in ns; 0 if nothing waits."""
        return self.earliest_ns if self.earliest_ns != NEVER else 0

    def _find_earliest(self) -> None:
        heap = self._heap
        while heap and heap[0][2].due_ns != heap[0][0]:
            heappop(heap)
        self.earliest_ns = heap[0][0] if heap else NEVER

    def run(self, now_ns: int) -> None:
        """Call everything that is due."""
        heap = self._heap
        while heap and heap[0][0] <= now_ns:
            due_ns, _, timer = heappop(heap)
            if timer.due_ns != due_ns or timer.callback is None:
                continue
            timer.due_ns = 0
            next_ns = timer.callback(now_ns)
            if next_ns:
                # Never in the past: one that is late must not keep the loop.
                self.schedule(timer, max(next_ns, now_ns + 1))
        self._find_earliest()
