"""A clock that stands still until the test moves it."""


class FakeClock:
    """Nanoseconds since the epoch, moved by hand. ``clock.now_ns`` can stand wherever ``time.time_ns`` is expected."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Return the time in nanoseconds."""
        return self._now_ns

    def advance(self, *, ns: int = 0, ms: float = 0, s: float = 0) -> int:
        """Move the clock forward and return the new time in nanoseconds."""
        step = ns + round(ms * 1_000_000) + round(s * 1_000_000_000)
        assert step >= 0, "time does not go back"
        self._now_ns += step
        return self._now_ns
