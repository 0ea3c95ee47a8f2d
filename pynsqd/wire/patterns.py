"""RE2 expressions over topic and channel names, matched in linear time (PROTOCOL 1.15). Pure.

Auth servers write their patterns for Go's ``regexp``. Python's ``re`` knows another syntax, and backtracks: one hostile
or careless pattern would hold up the node for ever. Here a pattern is parsed as RE2 does, compiled to a small machine
over the ASCII characters (names have no others) and run on all its states at once. Greediness, captures, ``(?m)`` and
``(?s)`` are read and make no difference: all that is asked is whether a name, which has no line ends, matches.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import or_
from typing import Final

MAX_SIZE: Final = 10_000  # of one machine; a{1000} has a thousand
_MAX_REPEAT: Final = 1000
_MAX_DEPTH: Final = 100  # of groups in each other
_MAX_CODE: Final = 0x10FFFF

# Sets of characters are integers with a bit per ASCII character.
_ALL: Final = (1 << 128) - 1


class PatternError(ValueError):
    """The expression is none, or is too large, or takes too long."""


# -- sets of characters --------------------------------------------------------------------------------------------


def _mask(characters: Iterable[int]) -> int:
    mask = 0
    for code in characters:
        if code < 128:
            mask |= 1 << code
    return mask


_UPPER: Final = _mask(range(0x41, 0x5B))
_LOWER: Final = _mask(range(0x61, 0x7B))
_DIGIT: Final = _mask(range(0x30, 0x3A))
_LETTER: Final = _UPPER | _LOWER
_WORD: Final = _LETTER | _DIGIT | _mask([0x5F])
_GRAPH: Final = _mask(range(0x21, 0x7F))
_PERL: Final = {"d": _DIGIT, "s": _mask(b"\t\n\f\r "), "w": _WORD}
_POSIX: Final = {
    "alnum": _LETTER | _DIGIT,
    "alpha": _LETTER,
    "ascii": _ALL,
    "blank": _mask(b"\t "),
    "cntrl": _mask([*range(0x20), 0x7F]),
    "digit": _DIGIT,
    "graph": _GRAPH,
    "lower": _LOWER,
    "print": _GRAPH | _mask(b" "),
    "punct": _GRAPH & ~(_LETTER | _DIGIT),
    "space": _mask(b"\t\n\v\f\r "),
    "upper": _UPPER,
    "word": _WORD,
    "xdigit": _DIGIT | _mask(b"abcdefABCDEF"),
}
# The characters beyond ASCII that are another case of one within: LONG S and KELVIN SIGN.
_FAR_CASES: Final = {0x17F: _mask(b"sS"), 0x212A: _mask(b"kK")}
# What the general categories of Unicode have within ASCII; the others have nothing there.
_CATEGORIES: Final = {
    "Lu": _UPPER,
    "Ll": _LOWER,
    "Nd": _DIGIT,
    "Pc": _mask(b"_"),
    "Pd": _mask(b"-"),
    "Ps": _mask(b"([{"),
    "Pe": _mask(b")]}"),
    "Po": _mask(b"!\"#%&'*,./:;?@\\"),
    "Sm": _mask(b"+<=>|~"),
    "Sc": _mask(b"$"),
    "Sk": _mask(b"^`"),
    "Zs": _mask(b" "),
    "Cc": _mask([*range(0x20), 0x7F]),
    **dict.fromkeys(
        ("Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nl", "No", "Pi", "Pf", "So", "Zl", "Zp", "Cf", "Cs", "Co"), 0
    ),
}


def _folded(mask: int) -> int:
    """Add the other case of every letter."""
    return mask | (mask & _UPPER) << 32 | (mask & _LOWER) >> 32


def _span(first: int, last: int, fold: bool) -> int:
    mask = _mask(range(first, min(last, 127) + 1))
    if fold:
        mask = _folded(mask)
        for code, near in _FAR_CASES.items():
            if first <= code <= last:
                mask |= near
    return mask


def _unicode_class(name: str) -> int:
    """Return what ``\\p{name}`` has within ASCII: a general category, or one of the few scripts that have any of it."""
    if name == "Any":
        return _ALL
    if name in ("Latin", "Common"):
        return _LETTER if name == "Latin" else _ALL & ~_LETTER
    found = [mask for category, mask in _CATEGORIES.items() if category.startswith(name)]
    if not name or not found:
        raise PatternError(f"no class {name!r} of characters")
    return reduce(or_, found)


# -- the tree ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Set:
    """One character of the set."""

    mask: int


@dataclass(frozen=True, slots=True)
class _Edge:
    r"""A place: ``^`` (the beginning), ``$`` (the end), ``b`` and ``B`` (a word's edge, and no such)."""

    kind: str


@dataclass(slots=True)
class _Sequence:
    nodes: list["_Node"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Choice:
    nodes: list["_Node"]


@dataclass(frozen=True, slots=True)
class _Repeat:
    node: "_Node"
    least: int
    most: int  # -1: any number


_Node = _Set | _Edge | _Sequence | _Choice | _Repeat


class _Parser:
    """Reads one expression, with Go's ideas of what is one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._fold = False
        self._names: set[str] = set()

    def parse(self) -> _Node:
        tree = self._choice(0)
        if self._at < len(self._text):
            raise PatternError("unexpected )")
        return tree

    def _choice(self, depth: int) -> _Node:
        """Read alternatives up to a closing parenthesis or the end."""
        if depth > _MAX_DEPTH:
            raise PatternError("groups too deep")
        fold = self._fold
        branches = [_Sequence()]
        while self._at < len(self._text) and self._text[self._at] != ")":
            if self._take("|"):
                branches.append(_Sequence())
            else:
                self._piece(branches[-1].nodes, depth)
        self._fold = fold
        return branches[0] if len(branches) == 1 else _Choice(list(branches))

    def _piece(self, nodes: list[_Node], depth: int) -> None:
        repeat = self._repeat()
        if repeat is not None:
            if not nodes:
                raise PatternError("nothing to repeat")
            nodes[-1] = _Repeat(nodes[-1], *repeat)
            if max(repeat) > 1 and not _repeats_at_most(nodes[-1], _MAX_REPEAT):
                raise PatternError(f"repeated more than {_MAX_REPEAT} times")
            if self._repeat() is not None:
                raise PatternError("a repetition of a repetition")
            return
        char = self._next()
        if char == "(":
            self._group(nodes, depth)
        elif char == "[":
            nodes.append(_Set(self._class()))
        elif char == "\\":
            self._escape(nodes)
        elif char == ".":
            nodes.append(_Set(_ALL))
        elif char in "^$":
            nodes.append(_Edge(char))
        else:
            nodes.append(self._literal(char))

    def _literal(self, char: str) -> _Set:
        return _Set(_span(ord(char), ord(char), self._fold))

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise PatternError("ends too soon")
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, wanted: str) -> bool:
        if not self._text.startswith(wanted, self._at):
            return False
        self._at += len(wanted)
        return True

    def _repeat(self) -> tuple[int, int] | None:
        """Read a repetition as (least, most), if there is one."""
        for sign, bounds in (("*", (0, -1)), ("+", (1, -1)), ("?", (0, 1))):
            if self._take(sign):
                self._take("?")
                return bounds
        if not self._text.startswith("{", self._at):
            return None
        end = self._text.find("}", self._at)
        first, comma, last = self._text[self._at + 1 : end].partition(",")
        if end < 0 or not _is_count(first) or (last and not _is_count(last)):
            return None  # then the brace is a character
        self._at = end + 1
        least = _count(first)
        most = _count(last) if last else -1 if comma else least
        if least > _MAX_REPEAT or most > _MAX_REPEAT or 0 <= most < least:
            raise PatternError("invalid repeat count")
        self._take("?")
        return least, most

    def _group(self, nodes: list[_Node], depth: int) -> None:
        fold = self._fold
        if self._take("?P<") or self._take("?<"):
            self._name()
        elif self._take("?") and not self._flags():
            return  # (?i) holds up to the end of the group around it
        inner = self._choice(depth + 1)
        if not self._take(")"):
            raise PatternError("missing )")
        self._fold = fold
        nodes.append(_Sequence([inner]))

    def _name(self) -> None:
        end = self._text.find(">", self._at)
        name = self._text[self._at : end]
        if end < 0 or not name.isascii() or not name.replace("_", "a").isalnum() or name in self._names:
            raise PatternError("bad name of a group")
        self._names.add(name)
        self._at = end + 1

    def _flags(self) -> bool:
        """Read flags; tell whether they begin a group."""
        on, last = True, ""
        while (char := self._next()) not in ":)":
            if char not in "imsU" and not (char == "-" and on):
                raise PatternError("unknown flag of a group")
            if char == "-":
                on = False
            elif char == "i":
                self._fold = on
            last = char
        if last == "-":
            raise PatternError("missing flag of a group")
        return char == ":"

    def _escape(self, nodes: list[_Node]) -> None:
        char = self._next()
        if char in "AzbB":
            nodes.append(_Edge({"A": "^", "z": "$"}.get(char, char)))
        elif char == "Q":
            literal, _, rest = self._text[self._at :].partition("\\E")
            self._at = len(self._text) - len(rest)
            nodes.extend(self._literal(one) for one in literal)
        else:
            mask = self._class_escape(char)
            if mask is None:
                code = self._code(char)
                mask = _span(code, code, self._fold)
            nodes.append(_Set(mask))

    def _class_escape(self, char: str) -> int | None:
        r"""Return the set of ``\d``, ``\pL`` and the like, None if ``char`` begins none."""
        if char.lower() in _PERL:
            mask = _PERL[char.lower()]
        elif char in "pP":
            name = self._next()
            if name == "{":
                end = self._text.find("}", self._at)
                if end < 0:
                    raise PatternError("missing }")
                name, self._at = self._text[self._at : end], end + 1
            if name.startswith("^"):
                char, name = char.swapcase(), name[1:]
            mask = _unicode_class(name)
        else:
            return None
        mask = self._cases(mask)
        return _ALL & ~mask if char.isupper() else mask

    def _cases(self, mask: int) -> int:
        return _folded(mask) if self._fold else mask

    def _code(self, char: str) -> int:
        """Return the character that a backslash and ``char`` mean."""
        if char in "01234567":
            following = self._text[self._at : self._at + 1]
            if char != "0" and not (following and following in "01234567"):
                raise PatternError("back-references are not supported")
            digits = char
            while len(digits) < 3 and self._text[self._at : self._at + 1] in tuple("01234567"):
                digits += self._next()
            return int(digits, 8)
        if char == "x":
            return self._hexadecimal()
        if char in "afnrtv":
            return {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}[char]
        if char.isascii() and not char.isalnum():
            return ord(char)
        raise PatternError("unknown escape")

    def _hexadecimal(self) -> int:
        if self._take("{"):
            end = self._text.find("}", self._at)
            digits, self._at = self._text[self._at : end], end + 1
            valid = end >= 0
        else:
            digits = self._text[self._at : self._at + 2]
            self._at += len(digits)
            valid = len(digits) == 2
        if not (valid and digits and all(digit in "0123456789abcdefABCDEF" for digit in digits)):
            raise PatternError("bad hexadecimal escape")
        code = int(digits[-9:], 16) if not digits[:-9].strip("0") else _MAX_CODE + 1
        if code > _MAX_CODE:
            raise PatternError("bad hexadecimal escape")
        return code

    def _class(self) -> int:
        """Read a class in brackets, after its opening one."""
        negated = self._take("^")
        mask = 0
        first = True
        while first or not self._take("]"):
            mask |= self._class_item()
            first = False
        return _ALL & ~mask if negated else mask

    def _class_item(self) -> int:
        if self._text.startswith("[:", self._at) and (end := self._text.find(":]", self._at + 2)) >= 0:
            name = self._text[self._at + 2 : end]
            self._at = end + 2
            positive = self._cases(_POSIX.get(name.removeprefix("^"), -1))
            if positive < 0:
                raise PatternError("unknown class of characters")
            return _ALL & ~positive if name.startswith("^") else positive
        char = self._next()
        if char == "\\":
            char = self._next()
            mask = self._class_escape(char)
            if mask is not None:
                return mask
            first = self._code(char)
        else:
            first = ord(char)
        last = first
        if self._text.startswith("-", self._at) and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
            self._at += 1
            char = self._next()
            last = self._code(self._next()) if char == "\\" else ord(char)
            if last < first:
                raise PatternError("bad range of characters")
        return _span(first, last, self._fold)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")


def _count(digits: str) -> int:
    return int(digits) if len(digits) < 9 else _MAX_REPEAT + 1


def _repeats_at_most(node: _Node, times: int) -> bool:
    """Tell whether repetitions in repetitions come to no more than ``times``."""
    if isinstance(node, _Repeat) and (node.least, node.most) not in ((0, -1), (1, -1), (0, 1)):
        count = node.most if node.most >= 0 else node.least
        if count > times:
            return False
        return not node.most or _repeats_at_most(node.node, times // count if count else times)
    if isinstance(node, _Repeat):
        return _repeats_at_most(node.node, times)
    if isinstance(node, _Sequence | _Choice):
        return all(_repeats_at_most(one, times) for one in node.nodes)
    return True


# -- the machine ---------------------------------------------------------------------------------------------------

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
        self._start = self._build(_Parser(expression).parse(), 0)

    def _add(self, step: _Step) -> int:
        self._steps.append(step)
        return len(self._steps) - 1

    def _build(self, node: _Node, then: int) -> int:
        """Add the steps of ``node``, which go on with step ``then``; return the first."""
        self.size += 1
        if self.size > MAX_SIZE:
            raise PatternError("too large")
        if isinstance(node, _Set):
            return self._add((node.mask, then, -1))
        if isinstance(node, _Edge):
            return self._add((node.kind, then, -1))
        if isinstance(node, _Sequence):
            for one in reversed(node.nodes):
                then = self._build(one, then)
            return then
        if isinstance(node, _Choice):
            entry = self._build(node.nodes[-1], then)
            for one in reversed(node.nodes[:-1]):
                entry = self._add((None, self._build(one, then), entry))
            return entry
        return self._build_repeat(node, then)

    def _build_repeat(self, node: _Repeat, then: int) -> int:
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
    before = at > 0 and bool(_WORD >> codes[at - 1] & 1)
    after = at < len(codes) and bool(_WORD >> codes[at] & 1)
    return (before != after) == (kind == "b")


@lru_cache(maxsize=1024)
def compiled(expression: str) -> Pattern:
    """Return the pattern of ``expression``; the clients of one auth server share theirs. Raises PatternError."""
    return Pattern(expression)
