"""A progress bar for long work: only for people, so only where stderr is a terminal."""

import sys
from time import monotonic
from types import TracebackType
from typing import Final, Self

_AFTER_S: Final = 0.5  # what is done by then needs no bar
_EVERY_S: Final = 0.1
_WIDTH: Final = 30


class Progress:
    """Shows how much of ``total`` bytes is done. Use it as a context: the bar is gone at its end."""

    def __init__(self, label: str, total: int) -> None:
        self._done = 0
        self._label = label
        self._next = monotonic() + _AFTER_S
        self._shown = False
        self._total = max(total, 1)
        self._wanted = sys.stderr.isatty()

    def advance(self, size: int) -> None:
        """``size`` more bytes are done."""
        self._done += size
        if self._wanted and monotonic() >= self._next:
            self._show()

    def _show(self) -> None:
        share = min(self._done / self._total, 1.0)
        bar = "#" * int(share * _WIDTH)
        sys.stderr.write(f"\r{self._label} [{bar:<{_WIDTH}}] {share:4.0%} of {self._total / 1e6:.0f} MB")
        sys.stderr.flush()
        self._shown = True
        self._next = monotonic() + _EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
