"""How a tool reads its command line and ends: one line on stderr and an exit code, never a traceback."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Final, NoReturn

from pynsqd.wire.errors import NsqError

CLEAN: Final = 0
FOUND: Final = 1  # damage, or a refusal
MISUSED: Final = 2  # a wrong command line, or files that cannot be read
_INTERRUPTED: Final = 130


class MisusedError(NsqError):
    """The command line is wrong, or what it names cannot be read."""


class Arguments(ArgumentParser):
    """Reads a command line. Raises MisusedError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise MisusedError."""
        raise MisusedError(f"{message} (see {self.prog} --help)")


def run(name: str, tool: Callable[[], int], *, failed: int) -> int:
    """Return the exit code of ``tool``; ``failed`` is the one for errors of the storage and the system."""
    try:
        code = tool()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads us has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLEAN
    except MisusedError as error:
        return _complain(name, str(error), MISUSED)
    except NsqError as error:
        return _complain(name, str(error), failed)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _complain(name, f"{place}{(error.strerror or str(error)).lower()}", failed)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as end:  # --help
        return int(end.code or 0)
    return code


def warn(name: str, text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"{name}: {''.join(char if char.isprintable() else ' ' for char in text)}\n")


def _complain(name: str, text: str, code: int) -> int:
    warn(name, text)
    return code
