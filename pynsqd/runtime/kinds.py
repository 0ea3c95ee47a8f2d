"""The kinds of values an option can have: how each is read from a flag and from the config file, and shown.

PROTOCOL 4.1 and 4.3, DEVIATIONS. Nothing here touches the system, so that the core may import its options.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar

from pynsqd.runtime.duration import MILLISECOND, format_duration, parse_duration
from pynsqd.wire.errors import StartupError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limit:
    """Which values make sense; ``text`` goes on after "must be" and says it to the operator."""

    text: str
    holds: Callable[[Any], bool]


NOT_NEGATIVE: Final = Limit("at least 0", lambda value: value >= 0)
POSITIVE: Final = Limit("more than 0", lambda value: value > 0)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of value. ``parse`` and ``load`` raise ValueError with a reason for what they do not take."""

    word: str  # stands for the value in the usage
    parse: Callable[[str], T]  # the text behind a flag
    load: Callable[[object], T]  # a value of the TOML file
    show: Callable[[T], str]  # as the operator would write it
    bare: bool = False  # as Go's boolean flags: --name alone is "true", the value can only follow "="
    join: Callable[[T, T], T] | None = None  # the flag may be repeated
    render: Callable[[T], object] = lambda value: value  # as JSON in /config (PROTOCOL 2.6)
    limit: Limit | None = None  # for every option of the kind that has no limit of its own


class LogLevel(IntEnum):
    """The levels with the numbers that /config shows (PROTOCOL 2.6)."""

    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    FATAL = 5


# Go's ParseInt with base 0: a base prefix, a leading 0 for octal, underscores between digits.
_INTEGER: Final = re.compile(
    r"[+-]?(?:0[xX](?P<x>(?:_?[0-9a-fA-F])+)|0[bB](?P<b>(?:_?[01])+)|0[oO]?(?P<o>(?:_?[0-7])+)|(?P<d>0|[1-9](?:_?[0-9])*))\Z"
)
_BASES: Final = {"x": 16, "b": 2, "o": 8, "d": 10}
_DIGITS: Final = re.compile(r"[+-]?[0-9]+\Z")
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


def parse_integer(text: str) -> int:
    """Read an integer as Go's ParseInt(text, 0, 64): ``16``, ``0x10``, ``020``, ``0b10000``. Raises ValueError."""
    found = _INTEGER.match(text)
    if found is None:
        raise ValueError("not an integer")
    base = str(found.lastgroup)
    value = int(found[base].replace("_", ""), _BASES[base])
    return _in_64_bits(-value if text.startswith("-") else value)


def parse_boolean(text: str) -> bool:
    """Read a boolean in any of Go's spellings, from ``1`` to ``True``. Raises ValueError."""
    if text not in _BOOLEANS:
        raise ValueError("not a boolean")
    return _BOOLEANS[text]


def parse_level(text: str) -> LogLevel:
    """Read the name of a log level, in any case. Raises ValueError."""
    if text.upper() not in LogLevel.__members__:
        raise ValueError("not one of debug, info, warn, error, fatal")
    return LogLevel[text.upper()]


def _in_64_bits(value: int) -> int:
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("out of range")
    return value


def load_text(value: object) -> str:
    """Take a string of the config file, or what stands for one where a flag takes a word (``true``, ``1``)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise ValueError("not a string")


def _load_string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


def _load_integer(value: object) -> int:
    if isinstance(value, str) and _DIGITS.match(value):
        return _in_64_bits(int(value))
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not an integer")
    return _in_64_bits(value)


def _load_boolean(value: object) -> bool:
    # DEVIATIONS: nsqd takes 0 for true and 1 for false.
    if isinstance(value, bool | str | int):
        return parse_boolean(load_text(value))
    raise ValueError("not a boolean")


def _load_duration(value: object) -> int:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("neither a duration such as 1m30s nor an integer (milliseconds)")
    return _in_64_bits(value * MILLISECOND)


def _load_strings(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("neither a list of strings nor one comma-separated string")
    return tuple(item.strip() for item in items if item.strip())


def _parse_float(text: str) -> float:
    if not _FLOAT.match(text) or math.isinf(float(text)):
        # The one bad flag value for which nsqd exits with 1 and not 2 (PROTOCOL 4.1).
        raise StartupError(f"Could not parse: {text}")
    return float(text)


def _parse_floats(text: str) -> tuple[float, ...]:
    return _descending(tuple(_parse_float(part) for part in text.split(",")), ())


def _load_floats(value: object) -> tuple[float, ...]:
    if isinstance(value, str):
        return tuple(_parse_float(part.strip()) for part in value.split(",") if part.strip())
    if not isinstance(value, list) or any(
        isinstance(item, bool) or not isinstance(item, float | int) for item in value
    ):
        raise ValueError("neither a list of numbers nor one comma-separated string")
    return tuple(float(item) for item in value)


def _descending(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
    # Given as flags they are sorted like nsqd's; the order of a config file is kept, as nsqd does.
    return tuple(sorted(first + second, reverse=True))


def show_float(value: float) -> str:
    """Show a number without the ``.0`` of a whole one."""
    return repr(value).removesuffix(".0")


def _render_floats(values: tuple[float, ...]) -> list[float | int]:
    return [int(value) if value.is_integer() else value for value in values]  # Go's JSON shows 1.0 as 1


STRING: Final[Kind[str]] = Kind("string", str, _load_string, str)
INTEGER: Final[Kind[int]] = Kind("int", parse_integer, _load_integer, str, limit=NOT_NEGATIVE)
BOOLEAN: Final[Kind[bool]] = Kind("bool", parse_boolean, _load_boolean, load_text, bare=True)
DURATION: Final[Kind[int]] = Kind("duration", parse_duration, _load_duration, format_duration, limit=NOT_NEGATIVE)
STRINGS: Final[Kind[tuple[str, ...]]] = Kind(
    "string", lambda text: (text,), _load_strings, ",".join, join=lambda first, second: first + second, render=list
)
FLOATS: Final[Kind[tuple[float, ...]]] = Kind(
    "floats",
    _parse_floats,
    _load_floats,
    lambda values: ",".join(map(show_float, values)),
    join=_descending,
    render=_render_floats,
)
LEVEL: Final[Kind[LogLevel]] = Kind(
    "level", parse_level, lambda value: parse_level(load_text(value)), lambda level: level.name.lower()
)


def word_of(*words: str) -> Kind[str]:
    """Make the kind of an option that is one of ``words``."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"not one of {', '.join(words)}")
        return text

    return Kind("|".join(words), parse, lambda value: parse(load_text(value)), str)
