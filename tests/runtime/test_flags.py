"""Go's flag syntax, the config file, and what wins (PROTOCOL 4.1, 4.3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pynsqd.runtime.duration import SECOND
from pynsqd.runtime.fields import Applies, option
from pynsqd.runtime.flags import (
    HelpRequested,
    UsageError,
    build_options,
    flags_of,
    parse_flags,
    read_config_file,
    usage,
)
from pynsqd.runtime.kinds import BOOLEAN, DURATION, FLOATS, INTEGER, STRING, STRINGS
from pynsqd.wire.errors import StartupError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    size: int = option(INTEGER, "mem-size", 100, "how much", unit="bytes")
    wait_ns: int = option(DURATION, "wait", 2 * SECOND, "how long")
    snappy: bool = option(BOOLEAN, "snappy", True, "compress", applies=Applies.NOT_YET)
    text: str = option(STRING, "text", "", "what")
    names: tuple[str, ...] = option(STRINGS, "name", (), "whose", key="names")
    quantiles: tuple[float, ...] = option(FLOATS, "quantile", (), "which")
    old: bool = option(BOOLEAN, "old", False, "deprecated", key="", applies=Applies.NEVER)
    given: frozenset[str] = frozenset()
    unknown_keys: frozenset[str] = frozenset()


def parse(*arguments: str) -> dict[str, Any]:
    return parse_flags(flags_of(Sample), arguments)


@pytest.mark.parametrize(
    "arguments",
    [("-mem-size", "5"), ("--mem-size", "5"), ("-mem-size=5"), ("--mem-size=5")],
)
def test_one_dash_or_two_and_space_or_equals(arguments: tuple[str, ...] | str) -> None:
    assert parse(*([arguments] if isinstance(arguments, str) else arguments)) == {"mem-size": 5}


def test_a_value_may_look_like_a_flag_or_contain_equals() -> None:
    assert parse("-mem-size", "-5", "--text", "--wait", "--wait=1s") == {
        "mem-size": -5,
        "text": "--wait",
        "wait": SECOND,
    }
    assert parse("--text=a=b") == {"text": "a=b"}
    assert parse("--text=") == {"text": ""}


def test_a_boolean_is_bare_or_has_equals() -> None:
    assert parse("--snappy") == {"snappy": True}
    assert parse("-snappy=F", "--old") == {"snappy": False, "old": True}


def test_a_word_after_a_bare_boolean_ends_the_flags() -> None:
    assert parse("--snappy", "false", "--mem-size=5") == {"snappy": True}


@pytest.mark.parametrize("stop", ["word", "-", "--", ""])
def test_the_first_argument_that_is_no_flag_ends_the_flags_silently(stop: str) -> None:
    assert parse("--text=a", stop, "--nope", "--mem-size=5") == {"text": "a"}


def test_lists_are_repeated_and_other_flags_overwritten() -> None:
    assert parse("--name=a,b", "--name", "c") == {"name": ("a,b", "c")}
    assert parse("--quantile=0.5,0.9", "--quantile=1") == {"quantile": (1.0, 0.9, 0.5)}
    assert parse("--mem-size=1", "--mem-size=2") == {"mem-size": 2}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--nope"], "flag provided but not defined: -nope"),
        (["-nope=5"], "flag provided but not defined: -nope"),
        (["--mem-size"], "flag needs an argument: -mem-size"),
        (["--mem-size="], 'invalid value "" for flag -mem-size: not an integer'),
        (["--mem-size", "x\ny"], 'invalid value "x\\ny" for flag -mem-size: not an integer'),
        (["--wait=5"], 'invalid value "5" for flag -wait: duration 5 has no unit (ns, us, ms, s, m, h)'),
        (["--old=5"], 'invalid value "5" for flag -old: not a boolean'),
        (["---x"], "bad flag syntax: ---x"),
        (["-=x"], "bad flag syntax: -=x"),
        (["--=x"], "bad flag syntax: --=x"),
    ],
)
def test_a_wrong_command_line_says_how(arguments: list[str], text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(*arguments)
    assert str(refused.value) == text


@pytest.mark.parametrize("argument", ["-h", "--h", "-help", "--help", "--help=x"])
def test_help_is_asked_for(argument: str) -> None:
    with pytest.raises(HelpRequested):
        parse("--text=a", argument, "--nope")


def test_usage_shows_unit_default_and_state() -> None:
    text = usage("pynsqd", flags_of(Sample))
    assert text.startswith("Usage of pynsqd:\n  --version\n")
    assert "  --mem-size bytes\n        how much (default 100)\n" in text
    assert "  --wait duration\n        how long (default 2s)\n" in text
    assert "  --snappy\n        compress (default true) [not yet]\n" in text
    assert "  --name string\n        whose; may be repeated\n" in text
    assert "  --old\n        deprecated [no effect]\n" in text


def config(folder: Path, text: str) -> str:
    path = folder / "sample.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_file_is_read_by_key(tmp_path: Path) -> None:
    path = config(tmp_path, 'mem_size = 7\nwait = 1500\nsnappy = false\nnames = "a,b"\n')
    assert read_config_file(Sample, path) == {
        "mem-size": 7,
        "wait": 1500 * SECOND // 1000,
        "snappy": False,
        "name": ("a", "b"),
    }


def test_unknown_keys_and_tables_are_ignored(tmp_path: Path) -> None:
    path = config(tmp_path, 'mem-size = 1\nname = "x"\nold = true\nversion = true\n"" = 1\n[table]\nmem_size = 7\n')
    unknown: set[str] = set()
    assert read_config_file(Sample, path, unknown.add) == {}
    assert unknown == {"mem-size", "name", "old", "version", "", "table"}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('mem_size = "x"', "mem_size = 'x': not an integer"),
        ("mem_size = 1.5", "mem_size = 1.5: not an integer"),
        ("mem_size = true", "mem_size = True: not an integer"),
        ('text = "a\\nb"\nwait = "1\\n"', "wait = '1\\n': duration 1\n has an unknown unit \n"),
        ("[mem_size]\na = 1", "mem_size = {'a': 1}: not an integer"),
        ("mem_size = ", "Invalid value (at end of document)"),
        ("a = " + "[" * 5000, "maximum recursion depth exceeded"),
    ],
)
def test_a_bad_value_stops_the_start(tmp_path: Path, content: str, text: str) -> None:
    path = config(tmp_path, content)
    with pytest.raises(StartupError) as refused:
        read_config_file(Sample, path)
    assert str(refused.value).startswith(f"failed to load config file {path} - {text}")


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^failed to load config file .*/none - no such file or directory$"):
        read_config_file(Sample, str(tmp_path / "none"))


def test_a_file_that_is_no_text_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StartupError, match=r"^failed to load config file .*/binary - 'utf-8' codec"):
        read_config_file(Sample, str(path))


def test_a_bad_percentile_in_the_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^Could not parse: x$"):
        read_config_file(Sample, config(tmp_path, 'quantile = "x"'))


def test_a_flag_wins_over_the_file_and_the_file_over_the_default() -> None:
    options = build_options(
        Sample,
        {"mem-size": 1, "name": ("flag",)},
        {"mem-size": 2, "wait": SECOND, "name": ("file", "file")},
        {"mem-size": 3, "wait": 3, "text": "machine"},
    )
    assert options == Sample(
        size=1, wait_ns=SECOND, text="machine", names=("flag",), given=frozenset({"mem-size", "wait", "name"})
    )
