"""Every kind of value: what a flag takes (as Go's strconv), what the config file takes (PROTOCOL 4.3)."""

from datetime import date
from typing import Any

import pytest

from pynsqd.runtime.duration import SECOND
from pynsqd.runtime.kinds import (
    BOOLEAN,
    DURATION,
    FLOATS,
    INTEGER,
    LEVEL,
    STRING,
    STRINGS,
    Kind,
    LogLevel,
    show_float,
    word_of,
)
from pynsqd.wire.errors import StartupError

# Printed by Go's strconv.ParseInt(text, 0, 64).
INTEGERS = {
    "0": 0,
    "00": 0,
    "+5": 5,
    "-5": -5,
    "0x10": 16,
    "0X1f": 31,
    "-0x1F": -31,
    "010": 8,
    "0o17": 15,
    "0O7": 7,
    "0b11": 3,
    "0B1": 1,
    "1_000": 1000,
    "0x_1": 1,
    "0_7": 7,
    "9223372036854775807": 2**63 - 1,
    "-9223372036854775808": -(2**63),
}
NO_INTEGERS = ["", "_1", "1_", "1__0", "0_", "0o", "0x", " 5", "5 ", "5\n", "08", "1e3", "1.0", "\u0663", "- 5", "+-5"]
OUT_OF_RANGE = ["9223372036854775808", "-9223372036854775809", "0x8000000000000000"]


@pytest.mark.parametrize("text", INTEGERS)
def test_an_integer_flag_is_read_as_go_reads_it(text: str) -> None:
    assert INTEGER.parse(text) == INTEGERS[text]


@pytest.mark.parametrize("text", NO_INTEGERS)
def test_what_is_no_integer(text: str) -> None:
    with pytest.raises(ValueError, match="not an integer"):
        INTEGER.parse(text)


@pytest.mark.parametrize("text", OUT_OF_RANGE)
def test_an_integer_has_64_bits(text: str) -> None:
    with pytest.raises(ValueError, match="out of range"):
        INTEGER.parse(text)


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_every_spelling_of_true(text: str) -> None:
    assert BOOLEAN.parse(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_every_spelling_of_false(text: str) -> None:
    assert BOOLEAN.parse(text) is False


@pytest.mark.parametrize("text", ["", "tRUE", "yes", "on", "5", " true"])
def test_what_is_no_boolean(text: str) -> None:
    with pytest.raises(ValueError, match="not a boolean"):
        BOOLEAN.parse(text)


@pytest.mark.parametrize("text", ["debug", "DEBUG", "dEbUg"])
def test_a_level_in_any_case(text: str) -> None:
    assert LEVEL.parse(text) is LogLevel.DEBUG


@pytest.mark.parametrize("text", ["", "warning", "1", "trace"])
def test_what_is_no_level(text: str) -> None:
    with pytest.raises(ValueError, match="debug, info, warn, error, fatal"):
        LEVEL.parse(text)


def test_floats_of_flags_are_sorted_downwards_over_all_flags() -> None:
    assert FLOATS.parse("0.5,.99") == (0.99, 0.5)
    assert FLOATS.join is not None
    assert FLOATS.join((0.99, 0.5), FLOATS.parse("1")) == (1.0, 0.99, 0.5)


@pytest.mark.parametrize("text", ["x", "", "0.9,", "0.9, 0.5", "nan", "inf", "1e999"])
def test_a_float_that_is_none_stops_the_start(text: str) -> None:
    with pytest.raises(StartupError, match=r"^Could not parse: "):
        FLOATS.parse(text)


LOADED: list[tuple[Kind[Any], object, object]] = [
    (STRING, "x", "x"),
    (STRING, "", ""),
    (INTEGER, 5, 5),
    (INTEGER, "5", 5),
    (INTEGER, "-5", -5),
    (INTEGER, "010", 10),
    (DURATION, "1m30s", 90 * SECOND),
    (DURATION, 1500, 1500 * SECOND // 1000),
    (BOOLEAN, True, True),
    (BOOLEAN, False, False),
    (BOOLEAN, "T", True),
    (BOOLEAN, 0, False),  # nsqd: true
    (BOOLEAN, 1, True),  # nsqd: false
    (STRINGS, ["a", "b"], ("a", "b")),
    (STRINGS, "a,b", ("a", "b")),
    (STRINGS, "a, b", ("a", "b")),
    (STRINGS, "", ()),
    (STRINGS, [], ()),
    (FLOATS, [0.5, 0.99], (0.5, 0.99)),  # in the order of the file
    (FLOATS, [1, 0.99], (1.0, 0.99)),  # nsqd panics
    (FLOATS, "0.5, 0.99", (0.5, 0.99)),
    (LEVEL, "Warn", LogLevel.WARN),
    (word_of("a", "b"), "b", "b"),
]
NOT_LOADED: list[tuple[Kind[Any], object]] = [
    (STRING, 5),
    (STRING, True),
    (STRING, ["x"]),
    (INTEGER, 5.0),
    (INTEGER, True),
    (INTEGER, "0x10"),
    (INTEGER, "five"),
    (INTEGER, 2**63),
    (DURATION, 1.5),
    (DURATION, True),
    (DURATION, "1500"),
    (DURATION, 2**62),
    (BOOLEAN, 2),
    (BOOLEAN, "yes"),
    (BOOLEAN, 1.0),
    (STRINGS, 5),
    (STRINGS, ["a", 5]),
    (STRINGS, {"a": 1}),
    (FLOATS, 0.99),
    (FLOATS, [True]),
    (FLOATS, ["0.99"]),
    (LEVEL, 1),
    (LEVEL, "loud"),
    (word_of("a", "b"), "c"),
    (word_of("a", "b"), 1.5),
    (BOOLEAN, date(2020, 1, 1)),
]


@pytest.mark.parametrize(("kind", "value", "expected"), LOADED)
def test_the_file_takes(kind: Kind[Any], value: object, expected: object) -> None:
    loaded = kind.load(value)
    assert loaded == expected
    assert type(loaded) is type(expected)


@pytest.mark.parametrize(("kind", "value"), NOT_LOADED)
def test_the_file_does_not_take(kind: Kind[Any], value: object) -> None:
    with pytest.raises(ValueError):
        kind.load(value)


def test_floats_are_rendered_as_go_renders_them() -> None:
    assert str(FLOATS.render((1.0, 0.99))) == "[1, 0.99]"


@pytest.mark.parametrize(("value", "shown"), [(1.0, "1"), (1.5, "1.5"), (1.0000001, "1.0000001"), (-0.5, "-0.5")])
def test_a_float_is_shown_in_full(value: float, shown: str) -> None:
    assert show_float(value) == shown
