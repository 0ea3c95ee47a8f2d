"""Lines of log that anybody could cause without end: one a minute, with how often it was."""

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

_PAUSE_S: Final = 60.0


class Seldom:
    """Says a line at once, and what comes within a minute of it as a number in the next."""

    def __init__(self, say: Callable[..., Any], clock: Callable[[], float] = monotonic) -> None:
        """Take what writes a line, such as ``log.warning``."""
        self._say = say
        self._clock = clock
        self._again_at = 0.0
        self._unsaid = 0

    def __call__(self, text: str, **more: object) -> None:
        """Say ``text``, unless it is too soon."""
        self._unsaid += 1
        now = self._clock()
        if now >= self._again_at:
            self._again_at = now + _PAUSE_S
            times, self._unsaid = self._unsaid, 0
            self._say(text, times=times, **more)
