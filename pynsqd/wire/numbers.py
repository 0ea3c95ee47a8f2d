"""Decimal parameters as Go reads them: digits only, kept modulo 2**64 (PROTOCOL 1.1)."""

from typing import Final

_MASK: Final = 2**64 - 1
_SIGN: Final = 2**63
_MS: Final = 1_000_000
_FEW: Final = 19  # so many digits are below 2**64
_CHUNK: Final = 4000  # below CPython's limit on the digits of one int()


def parse_uint64(text: bytes) -> int | None:
    """Return the value of ``text`` modulo 2**64, 0 for the empty text, None if it is not all ASCII digits."""
    if not text.isdigit():
        return None if text else 0
    if len(text) <= _FEW:
        return int(text)
    value = 0
    for start in range(0, len(text), _CHUNK):
        chunk = text[start : start + _CHUNK]
        value = (value * 10 ** len(chunk) + int(chunk)) & _MASK
    return value


def signed64(value: int) -> int:
    """Read the 64 bits of ``value`` as a signed number."""
    value &= _MASK
    return value - 2**64 if value >> 63 else value


def ms_to_ns(ms: int) -> int:
    """Convert milliseconds to ns in signed 64-bit arithmetic, wrapping as Go's time.Duration does."""
    ns = ms * _MS
    return ns if 0 <= ns < _SIGN else signed64(ns)
