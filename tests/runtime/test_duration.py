"""Expected values were printed by Go's time.ParseDuration and Duration.String."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.runtime.duration import HOUR, MINUTE, SECOND, format_duration, parse_duration

PARSED = {
    "0": 0,
    "+0": 0,
    "-0": 0,
    "0s": 0,
    "250ms": 250_000_000,
    "1m30s": 90 * SECOND,
    "1h0m0s": HOUR,
    "1.5h": 90 * MINUTE,
    ".5s": SECOND // 2,
    "1.s": SECOND,
    "+5s": 5 * SECOND,
    "-1.5m": -90 * SECOND,
    "1m1m": 2 * MINUTE,
    "3us": 3_000,
    "3\u00b5s": 3_000,
    "3\u03bcs": 3_000,
    "1.0000000005s": SECOND,
    "9223372036854775807ns": 2**63 - 1,
    "-9223372036854775808ns": -(2**63),
    "2562047h47m16.854775807s": 2**63 - 1,
    "0.3333333333333333333h": 20 * MINUTE,
    "9007199254.740993ms": 9007199254740993,
    "0.100000000000000000000h": 6 * MINUTE,
    ".0001ns": 0,
    "0.9999999999999999999999s": SECOND,
}
REFUSED = [
    "",
    "1",
    "5.0",
    ".s",
    "s",
    "-",
    "1x",
    "1 s",
    " 1s",
    "1s ",
    "\uff11s",
    "1e3s",
    "-+5s",
    "1h-5m",
    "1S",
    "1..5s",
    "9223372036854775808ns",
    "18446744073709551616ns",
    "3000000h",
    "-9223372036854775809ns",
    "1" * 5000 + "s",
    "nan",
]
PRINTED = {
    0: "0s",
    1: "1ns",
    -1: "-1ns",
    1_100: "1.1\u00b5s",
    999_999_000: "999.999ms",
    2_000_000: "2ms",
    SECOND: "1s",
    1_500_000_000: "1.5s",
    MINUTE: "1m0s",
    90 * MINUTE: "1h30m0s",
    HOUR: "1h0m0s",
    9007199254740993: "2501h59m59.254740993s",
    140954425000000: "39h9m14.425s",
    -90 * SECOND: "-1m30s",
    2**63 - 1: "2562047h47m16.854775807s",
    -(2**63): "-2562047h47m16.854775808s",
}


@pytest.mark.parametrize("text", PARSED)
def test_reads_what_go_reads(text: str) -> None:
    assert parse_duration(text) == PARSED[text]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_refuses_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize("duration_ns", PRINTED)
def test_prints_as_go_prints(duration_ns: int) -> None:
    assert format_duration(duration_ns) == PRINTED[duration_ns]


@given(st.integers(-(2**63), 2**63 - 1))
def test_what_is_printed_reads_back(duration_ns: int) -> None:
    assert abs(parse_duration(format_duration(duration_ns)) - duration_ns) <= 1  # the fraction goes through a float
