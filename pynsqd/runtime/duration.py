"""Durations as Go reads and prints them: ``250ms``, ``1m30s``, ``1h0m0s`` (PROTOCOL 4.1). Inside they are ns."""

import re
from typing import Final

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

_UNITS: Final = {
    "ns": 1,
    "us": MICROSECOND,
    "\u00b5s": MICROSECOND,  # the micro sign
    "\u03bcs": MICROSECOND,  # the Greek letter mu
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_TERM: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_LARGEST: Final = (1 << 63) - 1


def parse_duration(text: str) -> int:
    """Read a duration such as ``1m30s``, ``-1.5h`` or ``0`` into nanoseconds.

    A bare number other than 0 has no unit and is refused. Raises ValueError, also past the signed 64 bits that Go has.
    """
    negative = text.startswith("-")
    terms = text[1:] if text.startswith(("-", "+")) else text
    if terms == "0":
        return 0
    total = sum(_term(term, text) for term in _terms(terms, text))
    if total > _LARGEST + negative:
        raise ValueError(f"duration {text} is out of range")
    return -total if negative else total


def _terms(terms: str, text: str) -> list[re.Match[str]]:
    found = list(_TERM.finditer(terms))[:-1]  # the last match is the empty one at the end
    if not found:
        raise ValueError(f"not a duration: {text or 'empty'}")
    return found


def _term(term: re.Match[str], text: str) -> int:
    whole, fraction, name = term.groups()
    if not whole and not fraction:
        raise ValueError(f"not a duration: {text}")
    if not name:
        raise ValueError(f"duration {text} has no unit (ns, us, ms, s, m, h)")
    if name not in _UNITS:
        raise ValueError(f"duration {text} has an unknown unit {name}")
    unit = _UNITS[name]
    return int(whole or "0") * unit + _fraction(fraction or "", unit)


def _fraction(digits: str, unit: int) -> int:
    # In floating point as Go does it, so that 0.3333333333333333333h is 20m0s here too.
    value, scale = 0, 1.0
    for digit in digits:
        longer = value * 10 + int(digit)
        if longer > _LARGEST + 1:
            break
        value, scale = longer, scale * 10
    return int(value * (unit / scale))


def format_duration(duration_ns: int) -> str:
    """Print nanoseconds as Go does: ``0s``, ``1.5ms``, ``1m30s``, ``1h0m0s``."""
    if duration_ns == 0:
        return "0s"
    sign = "-" if duration_ns < 0 else ""
    rest_ns = abs(duration_ns)
    if rest_ns < MICROSECOND:
        return f"{sign}{rest_ns}ns"
    if rest_ns < MILLISECOND:
        return f"{sign}{_decimal(rest_ns, 3)}\u00b5s"
    if rest_ns < SECOND:
        return f"{sign}{_decimal(rest_ns, 6)}ms"
    minutes, rest_ns = divmod(rest_ns, MINUTE)
    hours, minutes = divmod(minutes, 60)
    leading = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{leading}{_decimal(rest_ns, 9)}s"


def _decimal(value: int, places: int) -> str:
    """Show ``value`` / 10**``places`` without trailing zeros."""
    whole, part = divmod(value, 10**places)
    return f"{whole}.{part:0{places}d}".rstrip("0").rstrip(".")
