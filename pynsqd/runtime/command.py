"""What both programs do with their command line: print, refuse in one line, or start the daemon."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pynsqd.runtime.fields import check_limits
from pynsqd.runtime.flags import (
    HelpRequested,
    UsageError,
    build_options,
    flags_of,
    parse_flags,
    read_config_file,
    usage,
)
from pynsqd.wire.errors import StartupError

T = TypeVar("T")

_OK, _FAILED, _MISUSED, _INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """One program: what it is called, its options, and how its daemon is started."""

    name: str
    stands_for: str  # the program it replaces, as texts for the operator name it (PROTOCOL 3.1)
    options: type[T]
    defaults: Callable[[], Mapping[str, Any]]  # by flag name, those that only the running machine knows
    checked: Callable[[T], T]  # the options in force; raises ValueError
    serve: Callable[[T], None]  # imports the daemon and runs it to its end; raises StartupError

    def main(self, arguments: Sequence[str], called: str) -> int:
        """Run with ``arguments``, called by the name ``called``, and return the exit code.

        0 for a clean end, 1 if the daemon cannot start, 2 for a wrong command line; each with its line on stderr.
        """
        try:
            return self._run(arguments, called)
        except StartupError as error:
            return self._fail(error)
        except KeyboardInterrupt:
            return _INTERRUPTED

    def _run(self, arguments: Sequence[str], called: str) -> int:
        flags = flags_of(self.options)
        try:
            given = parse_flags(flags, arguments)
        except HelpRequested:
            sys.stdout.write(usage(called, flags))
            return _OK
        except UsageError as error:
            sys.stderr.write(f"{error}\n{usage(called, flags)}")
            return _MISUSED
        if given.pop("version", False):
            from pynsqd.runtime.version import version_line  # noqa: PLC0415  # not needed to start

            sys.stdout.write(f"{version_line(self.name)}\n")
            return _OK
        if given.pop("build-info", False):
            from pynsqd.runtime.version import build_info  # noqa: PLC0415  # not needed to start

            sys.stdout.write(f"{build_info(self.name)}\n")
            return _OK
        return self._serve(self.read_options(given))

    def read_options(self, given: Mapping[str, Any]) -> T:
        """Build the options in force from the flags ``given`` and the config file they name. Raises StartupError."""
        path = given.get("config", "")
        unknown_keys: list[str] = []
        file = read_config_file(self.options, path, unknown_keys.append) if path else {}
        arguments = {name: value for name, value in given.items() if name != "config"}
        options = build_options(self.options, arguments, file, self.defaults(), unknown_keys)
        try:
            check_limits(options)
            return self.checked(options)
        except ValueError as error:
            raise StartupError(f"failed to instantiate {self.stands_for} - {error}") from None

    def _serve(self, options: T) -> int:
        failures: list[BaseException] = []
        try:
            self.serve(options)
        except* StartupError as group:  # a task group wraps what its tasks raise
            failures.extend(_leaves(group))
        return self._fail(failures[0]) if failures else _OK

    def _fail(self, error: BaseException) -> int:
        from datetime import datetime  # noqa: PLC0415  # only failures need it

        text = "".join(char if char.isprintable() else " " for char in str(error))
        now = datetime.now().strftime("%Y/%m/%d %H:%M:%S.%f")
        sys.stderr.write(f"[{self.stands_for}] {now} FATAL: {text}\n")
        return _FAILED


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
