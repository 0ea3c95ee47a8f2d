"""The command line in Go's syntax, the TOML config file, and what wins (PROTOCOL 4.1, 4.3; PROCESS 1)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from pynsqd.runtime.fields import Flag, declared, flag
from pynsqd.runtime.kinds import BOOLEAN, STRING
from pynsqd.wire.errors import NsqError, StartupError
from pynsqd.wire.quote import quote

T = TypeVar("T")

# What is asked of the command and not of the daemon.
COMMAND_FLAGS: Final = (
    flag(BOOLEAN, "version", False, "print the version of nsqd that this speaks like, and exit", key=""),
    flag(BOOLEAN, "build-info", False, "print the version of this product, and exit", key=""),
    flag(STRING, "config", "", "TOML file with options; flags that are given win", key="", unit="file"),
)
_HELP: Final = ("h", "help")


class UsageError(NsqError):
    """The command line is wrong; the text says how, for the line above the usage."""


class HelpRequested(NsqError):
    """``-h`` or ``--help`` was met while reading the command line."""


def flags_of(options: type) -> tuple[Flag, ...]:
    """Give every flag of a daemon, those of the command itself first."""
    return (*COMMAND_FLAGS, *(each for _, each in declared(options)))


def parse_flags(flags: Iterable[Flag], arguments: Sequence[str]) -> dict[str, Any]:
    """Read ``arguments`` (without the program) into values by flag name; only those given are there.

    One dash or two, ``--name value`` or ``--name=value``, booleans bare or with ``=``. The first argument that is no
    flag ends the flags silently. Raises UsageError, HelpRequested, and StartupError for a percentile that is no number.
    """
    by_name = {each.name: each for each in flags}
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest and len(rest[0]) > 1 and rest[0].startswith("-") and rest[0] != "--":
        name, equals, text = _split(rest.pop(0))
        if name not in by_name:
            if name in _HELP:
                raise HelpRequested
            raise UsageError(f"flag provided but not defined: -{name}")
        found = by_name[name]
        if not equals:
            if not found.kind.bare and not rest:
                raise UsageError(f"flag needs an argument: -{name}")
            text = "true" if found.kind.bare else rest.pop(0)
        value = _parse(found, text)
        given[name] = found.kind.join(given[name], value) if found.kind.join and name in given else value
    return given


def _split(argument: str) -> tuple[str, str, str]:
    stripped = argument[2:] if argument.startswith("--") else argument[1:]
    if stripped.startswith(("-", "=")):
        raise UsageError(f"bad flag syntax: {argument}")
    return stripped.partition("=")


def _parse(found: Flag, text: str) -> Any:
    try:
        return found.kind.parse(text)
    except ValueError as error:
        shown = quote(text.encode("utf-8", "surrogateescape"))
        raise UsageError(f"invalid value {shown} for flag -{found.name}: {error}") from None


def usage(program: str, flags: Iterable[Flag]) -> str:
    """Write the usage: every flag with its unit, help and default."""
    return f"Usage of {program}:\n" + "".join(map(_usage_line, flags))


def _usage_line(each: Flag) -> str:
    value = "" if each.kind.bare else f" {each.word}"
    default = f" (default {each.default_text})" if each.default_text not in {"", "false"} else ""
    repeatable = "; may be repeated" if each.kind.join else ""
    idle = f" [{each.applies.value}]" if each.applies.value else ""
    return f"  --{each.name}{value}\n        {each.meaning}{repeatable}{default}{idle}\n"


def read_config_file(options: type, path: str, on_unknown: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Read the TOML file at ``path`` into values by flag name, as ``parse_flags`` gives them.

    Keys at the top only; unknown ones and tables are ignored (PROTOCOL 4.3), and ``on_unknown`` hears of them. Raises
    StartupError with one line if the file cannot be read, is no TOML, or has a value of the wrong type.
    """
    import tomllib  # noqa: PLC0415  # 10 ms that most starts do not need

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
        known = [each for _, each in declared(options) if each.key and each.key in content]
        for key in content.keys() - {each.key for each in known}:
            on_unknown(key)
        return {each.name: _load(each, content[each.key]) for each in known}
    except OSError as error:
        raise StartupError(f"failed to load config file {path} - {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError) as error:
        raise StartupError(f"failed to load config file {path} - {error}") from None


def _load(each: Flag, value: object) -> Any:
    try:
        return each.kind.load(value)
    except ValueError as error:
        raise ValueError(f"{each.key} = {value!r}: {error}") from None


def build_options(
    options: type[T],
    arguments: Mapping[str, Any],
    file: Mapping[str, Any],
    defaults: Mapping[str, Any],
    unknown_keys: Iterable[str] = (),
) -> T:
    """Build the options: a flag given wins over the config file, the file over the default.

    All three go by flag name; ``defaults`` are those that only the running machine knows, ``unknown_keys`` what else
    the config file has.
    """
    given = {**file, **arguments}
    values = {**defaults, **given}
    fields = {name: values[each.name] for name, each in declared(options) if each.name in values}
    make: Callable[..., T] = options
    return make(**fields, given=frozenset(given), unknown_keys=frozenset(unknown_keys))
