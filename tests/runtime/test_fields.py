"""One dataclass field is the whole declaration of an option."""

from dataclasses import dataclass

import pytest

from pynsqd.runtime.duration import SECOND
from pynsqd.runtime.fields import Applies, check_limits, config_value, declared, idle_notice, option
from pynsqd.runtime.kinds import BOOLEAN, DURATION, INTEGER, POSITIVE, STRING, STRINGS, Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    wait_ns: int = option(DURATION, "wait", 2 * SECOND, "how long", limit=POSITIVE)
    number: int = option(INTEGER, "the-number", 5, "how many", key="n", unit="things")
    level: int = option(INTEGER, "level", 6, "how hard", limit=Limit("[1,9]", lambda value: 1 <= value <= 9))
    names: tuple[str, ...] = option(STRINGS, "name", (), "whose")
    old: bool = option(BOOLEAN, "old", False, "deprecated", key="", applies=Applies.NEVER)
    later: str = option(STRING, "later", "", "some day", applies=Applies.NOT_YET, shown="the host name")
    given: frozenset[str] = frozenset()
    unknown_keys: frozenset[str] = frozenset()


def test_defaults_are_those_of_the_declaration() -> None:
    assert Sample() == Sample(wait_ns=2 * SECOND, number=5, level=6, names=(), old=False, later="")


def test_only_declared_fields_are_options() -> None:
    assert [name for name, _ in declared(Sample)] == ["wait_ns", "number", "level", "names", "old", "later"]


def test_a_flag_shows_unit_default_key_and_limit() -> None:
    flags = dict(declared(Sample))
    assert (flags["wait_ns"].key, flags["wait_ns"].word, flags["wait_ns"].default_text) == ("wait", "duration", "2s")
    assert (flags["number"].key, flags["number"].word, flags["number"].default_text) == ("n", "things", "5")
    assert flags["level"].meaning == "how hard; [1,9]"
    assert flags["number"].meaning == "how many"
    assert flags["later"].default_text == "the host name"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wait", 2 * SECOND),
        ("n", 5),
        ("names", None),
        ("name", []),
        ("later", ""),
        ("the_number", None),
        ("wait_ns", None),
        ("old", None),
        ("", None),
        ("given", None),
    ],
)
def test_config_value_goes_by_key(key: str, value: object) -> None:
    assert config_value(Sample(), key) == value


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Sample(wait_ns=0), "--wait must be more than 0"),
        (Sample(number=-1), "--the-number must be at least 0"),
        (Sample(level=10), "--level must be [1,9]"),
    ],
)
def test_a_value_out_of_its_limit_is_named(options: Sample, text: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_limits(options)
    assert str(refused.value) == text


def test_values_at_their_limits_pass() -> None:
    check_limits(Sample(wait_ns=1, number=0, level=9))


def test_the_notice_names_what_changes_nothing() -> None:
    assert idle_notice(Sample(), ["later", "wait", "old"]) == (
        "options that change nothing: --old (no effect), --later (not yet)"
    )


def test_the_notice_names_keys_that_nobody_knows() -> None:
    assert idle_notice(Sample(), ["old"], ["no_key", "datapath"]) == (
        "options that change nothing: --old (no effect), datapath (unknown key), no_key (unknown key)"
    )


def test_there_is_no_notice_for_options_that_apply() -> None:
    assert idle_notice(Sample(), ["wait", "level"]) == ""
