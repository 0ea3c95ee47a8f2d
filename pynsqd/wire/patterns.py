"""RE2 expressions over topic and channel names, matched in linear time (PROTOCOL 1.15). Pure.

Auth servers write their patterns for Go's ``regexp``. Python's ``re`` knows another syntax, and backtracks: one hostile
or careless pattern would hold up the node for ever. Here an expression becomes a small machine over ASCII characters,
and all of its states are run at once.
"""

from functools import lru_cache
from typing import Final

from pynsqd.wire.char_sets import WORD
from pynsqd.wire.expressions import Choice, Edge, Node, PatternError, Repeat, Sequence, Set, parse

__all__ = ["Effort", "Pattern", "PatternError", "compiled"]

MAX_SIZE: Final = 10_000  # of one machine; a{1000} has a thousand

# A step: a set of characters to go on with, an edge that has to be there, or where else to go on; then the next step.
_Step = tuple[int | str | None, int, int]


class Effort:
    """How many steps may be looked at; one takes about 0.2 µs."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Raise PatternError when there is not that much left."""
        self._left -= steps
        if self._left < 0:
            raise PatternError("takes too long")


class Pattern:
    """A compiled expression. ``size`` is what it costs, in parts of it that were built."""

    __slots__ = ("_start", "_steps", "size")

    def __init__(self, expression: str) -> None:
        """Compile ``expression``. Raises PatternError."""
        self.size = 0
        self._steps: list[_Step] = [("match", -1, -1)]
        self._start = self._build(parse(expression), 0)

    def _add(self, step: _Step) -> int:
        self._steps.append(step)
        return len(self._steps) - 1

    def _build(self, node: Node, then: int) -> int:
        """Add the steps of ``node``, which go on with step ``then``; return the first."""
        self.size += 1
        if self.size > MAX_SIZE:
            raise PatternError("too large")
        if isinstance(node, Set):
            return self._add((node.mask, then, -1))
        if isinstance(node, Edge):
            return self._add((node.kind, then, -1))
        if isinstance(node, Sequence):
            for one in reversed(node.nodes):
                then = self._build(one, then)
            return then
        if isinstance(node, Choice):
            entry = self._build(node.nodes[-1], then)
            for one in reversed(node.nodes[:-1]):
                entry = self._add((None, self._build(one, then), entry))
            return entry
        return self._build_repeat(node, then)

    def _build_repeat(self, node: Repeat, then: int) -> int:
        if node.most < 0:
            loop = self._add((None, -1, then))
            self._steps[loop] = (None, self._build(node.node, loop), then)
            then = loop
        for _ in range(node.most - node.least):
            then = self._add((None, self._build(node.node, then), then))
        for _ in range(node.least):
            then = self._build(node.node, then)
        return then

    def matches(self, name: str, effort: Effort) -> bool:
        """Tell whether the expression matches anywhere in ``name``, which is ASCII. Raises PatternError."""
        codes = name.encode("ascii")
        waiting: list[int] = []
        for at in range(len(codes) + 1):
            ready = self._reach([*waiting, self._start], codes, at, effort)
            if ready is None:
                return True
            bit = 1 << codes[at] if at < len(codes) else 0
            waiting = [then for mask, then in ready if mask & bit]
        return False

    def _reach(self, steps: list[int], codes: bytes, at: int, effort: Effort) -> list[tuple[int, int]] | None:
        """Return the sets that are reached from ``steps`` without a character; None if the end is."""
        ready: list[tuple[int, int]] = []
        seen = set(steps)
        while steps:
            what, then, other = self._steps[steps.pop()]
            if isinstance(what, int):
                ready.append((what, then))
                continue
            if what == "match":
                return None
            if what is not None and not _is_edge(what, codes, at):
                continue
            for step in (then, other):
                if step >= 0 and step not in seen:
                    seen.add(step)
                    steps.append(step)
        effort.spend(len(seen))
        return ready


def _is_edge(kind: str, codes: bytes, at: int) -> bool:
    if kind == "^":
        return at == 0
    if kind == "$":
        return at == len(codes)
    before = at > 0 and bool(WORD >> codes[at - 1] & 1)
    after = at < len(codes) and bool(WORD >> codes[at] & 1)
    return (before != after) == (kind == "b")


@lru_cache(maxsize=1024)
def compiled(expression: str) -> Pattern:
    """Return the pattern of ``expression``; the clients of one auth server share theirs. Raises PatternError."""
    return Pattern(expression)
