"""RE2 expressions: from the text to a tree, with Go's ideas of what is one (PROTOCOL 1.15). Pure.

Greediness, captures, ``(?m)`` and ``(?s)`` are read and make no difference: all that is asked is whether a name, which
has no line ends, matches.
"""

from dataclasses import dataclass, field
from typing import Final

from pynsqd.wire.char_sets import ALL, PERL, POSIX, folded, span, unicode_class

_MAX_REPEAT: Final = 1000
_MAX_DEPTH: Final = 100  # of groups in each other
_MAX_CODE: Final = 0x10FFFF


class PatternError(ValueError):
    """The expression is none, or is too large, or takes too long."""


@dataclass(frozen=True, slots=True)
class Set:
    """One character of the set."""

    mask: int


@dataclass(frozen=True, slots=True)
class Edge:
    r"""A place: ``^`` (the beginning), ``$`` (the end), ``b`` and ``B`` (a word's edge, and no such)."""

    kind: str


@dataclass(slots=True)
class Sequence:
    """One after the other."""

    nodes: list["Node"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of them."""

    nodes: list["Node"]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same, over and over."""

    node: "Node"
    least: int
    most: int  # -1: any number


Node = Set | Edge | Sequence | Choice | Repeat


def parse(expression: str) -> Node:
    """Return the tree of ``expression``. Raises PatternError."""
    return _Parser(expression).parse()


class _Parser:
    """Reads one expression, with Go's ideas of what is one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._fold = False
        self._names: set[str] = set()

    def parse(self) -> Node:
        tree = self._choice(0)
        if self._at < len(self._text):
            raise PatternError("unexpected )")
        return tree

    def _choice(self, depth: int) -> Node:
        """Read alternatives up to a closing parenthesis or the end."""
        if depth > _MAX_DEPTH:
            raise PatternError("groups too deep")
        fold = self._fold
        branches = [Sequence()]
        while self._at < len(self._text) and self._text[self._at] != ")":
            if self._take("|"):
                branches.append(Sequence())
            else:
                self._piece(branches[-1].nodes, depth)
        self._fold = fold
        return branches[0] if len(branches) == 1 else Choice(list(branches))

    def _piece(self, nodes: list[Node], depth: int) -> None:
        repeat = self._repeat()
        if repeat is not None:
            if not nodes:
                raise PatternError("nothing to repeat")
            nodes[-1] = Repeat(nodes[-1], *repeat)
            if max(repeat) > 1 and not _repeats_at_most(nodes[-1], _MAX_REPEAT):
                raise PatternError(f"repeated more than {_MAX_REPEAT} times")
            if self._repeat() is not None:
                raise PatternError("a repetition of a repetition")
            return
        char = self._next()
        if char == "(":
            self._group(nodes, depth)
        elif char == "[":
            nodes.append(Set(self._class()))
        elif char == "\\":
            self._escape(nodes)
        elif char == ".":
            nodes.append(Set(ALL))
        elif char in "^$":
            nodes.append(Edge(char))
        else:
            nodes.append(self._literal(char))

    def _literal(self, char: str) -> Set:
        return Set(span(ord(char), ord(char), self._fold))

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

    def _group(self, nodes: list[Node], depth: int) -> None:
        fold = self._fold
        if self._take("?P<") or self._take("?<"):
            self._name()
        elif self._take("?") and not self._flags():
            return  # (?i) holds up to the end of the group around it
        inner = self._choice(depth + 1)
        if not self._take(")"):
            raise PatternError("missing )")
        self._fold = fold
        nodes.append(Sequence([inner]))

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

    def _escape(self, nodes: list[Node]) -> None:
        char = self._next()
        if char in "AzbB":
            nodes.append(Edge({"A": "^", "z": "$"}.get(char, char)))
        elif char == "Q":
            literal, _, rest = self._text[self._at :].partition("\\E")
            self._at = len(self._text) - len(rest)
            nodes.extend(self._literal(one) for one in literal)
        else:
            mask = self._class_escape(char)
            if mask is None:
                code = self._code(char)
                mask = span(code, code, self._fold)
            nodes.append(Set(mask))

    def _class_escape(self, char: str) -> int | None:
        r"""Return the set of ``\d``, ``\pL`` and the like, None if ``char`` begins none."""
        if char.lower() in PERL:
            mask = PERL[char.lower()]
        elif char in "pP":
            name = self._next()
            if name == "{":
                end = self._text.find("}", self._at)
                if end < 0:
                    raise PatternError("missing }")
                name, self._at = self._text[self._at : end], end + 1
            if name.startswith("^"):
                char, name = char.swapcase(), name[1:]
            mask = unicode_class(name)
            if mask < 0:
                raise PatternError(f"no class {name!r} of characters")
        else:
            return None
        mask = self._cases(mask)
        return ALL & ~mask if char.isupper() else mask

    def _cases(self, mask: int) -> int:
        return folded(mask) if self._fold else mask

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
        return ALL & ~mask if negated else mask

    def _class_item(self) -> int:
        if self._text.startswith("[:", self._at) and (end := self._text.find(":]", self._at + 2)) >= 0:
            name = self._text[self._at + 2 : end]
            self._at = end + 2
            positive = self._cases(POSIX.get(name.removeprefix("^"), -1))
            if positive < 0:
                raise PatternError("unknown class of characters")
            return ALL & ~positive if name.startswith("^") else positive
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
        return span(first, last, self._fold)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")


def _count(digits: str) -> int:
    return int(digits) if len(digits) < 9 else _MAX_REPEAT + 1


def _repeats_at_most(node: Node, times: int) -> bool:
    """Tell whether repetitions in repetitions come to no more than ``times``."""
    if isinstance(node, Repeat) and (node.least, node.most) not in ((0, -1), (1, -1), (0, 1)):
        count = node.most if node.most >= 0 else node.least
        if count > times:
            return False
        return not node.most or _repeats_at_most(node.node, times // count if count else times)
    if isinstance(node, Repeat):
        return _repeats_at_most(node.node, times)
    if isinstance(node, Sequence | Choice):
        return all(_repeats_at_most(one, times) for one in node.nodes)
    return True
