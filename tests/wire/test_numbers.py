"""Decimal parameters (PROTOCOL 1.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.wire.numbers import ms_to_ns, parse_uint64, signed64


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"", 0),
        (b"0", 0),
        (b"007", 7),
        (b"2500", 2500),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 0),
        (b"18446744073709551617", 1),
        (b"9" * 16000, (10**16000 - 1) % 2**64),  # more digits than one int() may have
    ],
)
def test_digits(text: bytes, value: int) -> None:
    assert parse_uint64(text) == value


@pytest.mark.parametrize(
    "text",
    [b"-1", b"+1", b"1.0", b"1e3", b" 1", b"1 ", b"1_0", b"x", b"0x1", b"1\r", b"\xb2", "٣".encode(), b"-", b"\0"],
)
def test_anything_else_is_no_number(text: bytes) -> None:
    assert parse_uint64(text) is None


@given(st.integers(min_value=0, max_value=10**9000), st.integers(min_value=0, max_value=50))
def test_the_value_is_kept_modulo_2_64(number: int, zeros: int) -> None:
    digits = _digits(number)
    assert parse_uint64(b"0" * zeros + digits) == number % 2**64


def _digits(number: int) -> bytes:
    """int to text without CPython's limit on its length."""
    chunks = []
    while number >= 10**1000:
        number, rest = divmod(number, 10**1000)
        chunks.append(b"%01000d" % rest)
    return b"%d" % number + b"".join(reversed(chunks))


@pytest.mark.parametrize(
    ("value", "signed"),
    [(0, 0), (1, 1), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1), (2**64, 0), (-1, -1)],
)
def test_signed(value: int, signed: int) -> None:
    assert signed64(value) == signed


@pytest.mark.parametrize(
    ("ms", "ns"),
    [
        (0, 0),
        (1, 1_000_000),
        (3_600_000, 3_600_000_000_000),
        (2**64 - 1, -1_000_000),
        (9223372036854, 9223372036854_000_000),
        (9223372036855, 9223372036855_000_000 - 2**64),
        (18446744073710, 18446744073710_000_000 - 2**64),  # wraps all the way round, into a legal delay
    ],
)
def test_ms_to_ns_wraps_like_a_duration(ms: int, ns: int) -> None:
    assert ms_to_ns(ms) == ns
