"""What a program prints, and with which code it ends."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pynsqd.runtime.command import Command
from pynsqd.runtime.fields import option
from pynsqd.runtime.kinds import INTEGER, STRING
from pynsqd.wire.errors import StartupError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    size: int = option(INTEGER, "size", 5, "how much")
    host: str = option(STRING, "host", "", "who")
    given: frozenset[str] = frozenset()
    unknown_keys: frozenset[str] = frozenset()


@dataclass
class Program:
    """A command whose daemon only notes with what it was started."""

    fails: Callable[[], None] | None = None
    served: list[Sample] = field(default_factory=list)

    def __call__(self, *arguments: str) -> int:
        command = Command("pysample", "sample", Sample, lambda: {"host": "machine"}, self._check, self._serve)
        return command.main(arguments, "called")

    def _check(self, options: Sample) -> Sample:
        if options.size == 13:
            raise ValueError("13 brings bad luck")
        return options

    def _serve(self, options: Sample) -> None:
        self.served.append(options)
        if self.fails:
            self.fails()


def test_the_daemon_gets_its_options() -> None:
    program = Program()
    assert program("--size=7", "word", "--nope") == 0
    assert program.served == [Sample(size=7, host="machine", given=frozenset({"size"}))]


def test_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('size = 8\nhost = "file"\n')
    program = Program()
    assert program("--config", str(tmp_path / "c.toml"), "--size=7") == 0
    assert program.served == [Sample(size=7, host="file", given=frozenset({"size", "host"}))]


@pytest.mark.parametrize("flag", ["--version", "-version", "--version=true", "--version=T"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = Program()
    assert program("--config=/does/not/exist", flag) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"pysample v1\.3\.0 \(built w/python3\.\d+\.\d+\)\n", out)
    assert err == ""
    assert not program.served


def test_a_version_that_is_not_wanted_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    program = Program()
    assert program("--version=false", "--build-info=0") == 0
    assert capsys.readouterr() == ("", "")
    assert len(program.served) == 1


def test_build_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert Program()("--build-info") == 0
    assert capsys.readouterr().out.startswith("pysample ")


def test_help_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert Program()("-h") == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage of called:\n")
    assert "  --size int\n        how much (default 5)\n" in out
    assert err == ""


def test_a_wrong_command_line_ends_with_2_and_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    program = Program()
    assert program("--size=x") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith('invalid value "x" for flag -size: not an integer\nUsage of called:\n')
    assert not program.served


def fatal(capsys: pytest.CaptureFixture[str]) -> str:
    """Give the text of the one line on standard error."""
    out, err = capsys.readouterr()
    assert out == ""
    line = re.fullmatch(r"\[sample\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} FATAL: (.*)\n", err)
    assert line, err
    return line[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--size=-1"], "failed to instantiate sample - --size must be at least 0"),
        (["--size=13"], "failed to instantiate sample - 13 brings bad luck"),
        (["--config=/does/not/exist"], "failed to load config file /does/not/exist - no such file or directory"),
        (["--config=/a\nb"], "failed to load config file /a b - no such file or directory"),
    ],
)
def test_what_cannot_work_ends_with_1_and_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Program()
    assert program(*arguments) == 1
    assert fatal(capsys) == text
    assert not program.served


def test_the_limits_hold_for_the_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text("size = -1")
    assert Program()("--config", str(tmp_path / "c.toml")) == 1
    assert fatal(capsys) == "failed to instantiate sample - --size must be at least 0"


def _raise(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        StartupError("listen (x) failed"),
        ExceptionGroup("outer", [ExceptionGroup("inner", [StartupError("listen (x) failed")])]),
    ],
)
def test_a_daemon_that_cannot_start_says_so_in_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert Program(_raise(error))() == 1
    assert fatal(capsys) == "listen (x) failed"


def test_a_bug_is_no_startup_error() -> None:
    with pytest.raises(ZeroDivisionError):
        Program(_raise(ZeroDivisionError()))()


def test_an_interrupt_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert Program(_raise(KeyboardInterrupt()))() == 130
    assert capsys.readouterr() == ("", "")
