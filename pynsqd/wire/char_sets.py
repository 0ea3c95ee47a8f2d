"""Sets of ASCII characters, and those that RE2 has names for (PROTOCOL 1.15). Pure.

A set is an integer with a bit per character. What is beyond ASCII is in none: no name of a topic or channel has it.
"""

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Final

ALL: Final = (1 << 128) - 1


def mask_of(characters: Iterable[int]) -> int:
    """Return the set of those characters."""
    mask = 0
    for code in characters:
        if code < 128:
            mask |= 1 << code
    return mask


_UPPER: Final = mask_of(range(0x41, 0x5B))
_LOWER: Final = mask_of(range(0x61, 0x7B))
_DIGIT: Final = mask_of(range(0x30, 0x3A))
_LETTER: Final = _UPPER | _LOWER
WORD: Final = _LETTER | _DIGIT | mask_of([0x5F])
_GRAPH: Final = mask_of(range(0x21, 0x7F))
PERL: Final = {"d": _DIGIT, "s": mask_of(b"\t\n\f\r "), "w": WORD}
POSIX: Final = {
    "alnum": _LETTER | _DIGIT,
    "alpha": _LETTER,
    "ascii": ALL,
    "blank": mask_of(b"\t "),
    "cntrl": mask_of([*range(0x20), 0x7F]),
    "digit": _DIGIT,
    "graph": _GRAPH,
    "lower": _LOWER,
    "print": _GRAPH | mask_of(b" "),
    "punct": _GRAPH & ~(_LETTER | _DIGIT),
    "space": mask_of(b"\t\n\v\f\r "),
    "upper": _UPPER,
    "word": WORD,
    "xdigit": _DIGIT | mask_of(b"abcdefABCDEF"),
}
# The characters beyond ASCII that are another case of one within: LONG S and KELVIN SIGN.
_FAR_CASES: Final = {0x17F: mask_of(b"sS"), 0x212A: mask_of(b"kK")}
# What the general categories of Unicode have within ASCII; the others have nothing there.
_CATEGORIES: Final = {
    "Lu": _UPPER,
    "Ll": _LOWER,
    "Nd": _DIGIT,
    "Pc": mask_of(b"_"),
    "Pd": mask_of(b"-"),
    "Ps": mask_of(b"([{"),
    "Pe": mask_of(b")]}"),
    "Po": mask_of(b"!\"#%&'*,./:;?@\\"),
    "Sm": mask_of(b"+<=>|~"),
    "Sc": mask_of(b"$"),
    "Sk": mask_of(b"^`"),
    "Zs": mask_of(b" "),
    "Cc": mask_of([*range(0x20), 0x7F]),
    **dict.fromkeys(
        ("Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nl", "No", "Pi", "Pf", "So", "Zl", "Zp", "Cf", "Cs", "Co"), 0
    ),
}


def folded(mask: int) -> int:
    """Add the other case of every letter."""
    return mask | (mask & _UPPER) << 32 | (mask & _LOWER) >> 32


def span(first: int, last: int, fold: bool) -> int:
    """Return the characters from ``first`` to ``last``; with ``fold`` their other cases too."""
    mask = mask_of(range(first, min(last, 127) + 1))
    if fold:
        mask = folded(mask)
        for code, near in _FAR_CASES.items():
            if first <= code <= last:
                mask |= near
    return mask


def unicode_class(name: str) -> int:
    r"""Return what ``\p{name}`` has within ASCII, -1 if there is no such class.

    These are the general categories, and the few scripts that have anything there.
    """
    if name == "Any":
        return ALL
    if name in ("Latin", "Common"):
        return _LETTER if name == "Latin" else ALL & ~_LETTER
    found = [mask for category, mask in _CATEGORIES.items() if category.startswith(name)]
    return reduce(or_, found) if name and found else -1
