"""Topic and channel names (PROTOCOL 1.16)."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.wire.names import is_ephemeral, is_valid_name

ALLOWED = string.ascii_letters + string.digits + "._-"


@pytest.mark.parametrize(
    "name",
    [
        "a",
        ".",
        "-",
        "_",
        "A-b_c.9",
        "a" * 64,
        "a#ephemeral",
        "a" * 54 + "#ephemeral",
        "...",
    ],
)
def test_valid(name: str) -> None:
    assert is_valid_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 65,
        "a" * 55 + "#ephemeral",
        "#ephemeral",
        "a#ephemera",
        "a#ephemerals",
        "a#ephemeral#ephemeral",
        "a#Ephemeral",
        "a#",
        "a b",
        "a\n",
        "a#ephemeral\n",
        "\na",
        "a\r",
        "a\0",
        "a/b",
        "*",
        "é",
        "٣",  # a digit, but not an ASCII one
        "\udcff",
    ],
)
def test_invalid(name: str) -> None:
    assert not is_valid_name(name)


@given(st.text(st.sampled_from(ALLOWED), min_size=1, max_size=64))
def test_every_string_of_allowed_characters_up_to_64_is_valid(name: str) -> None:
    assert is_valid_name(name)


@given(st.text(min_size=1, max_size=8), st.sampled_from(["", "x", "x#ephemeral"]))
def test_one_character_outside_the_set_spoils_it(odd: str, rest: str) -> None:
    if any(char not in ALLOWED for char in odd) and not is_ephemeral(rest + odd):
        assert not is_valid_name(rest + odd)
        assert not is_valid_name(odd + rest)


def test_ephemeral_is_told_by_the_whole_suffix() -> None:
    assert is_ephemeral("a#ephemeral")
    assert not is_ephemeral("a")
    assert not is_ephemeral("aephemeral")
    assert not is_ephemeral("#ephemeralx")
