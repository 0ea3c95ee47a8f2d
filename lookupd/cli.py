"""The ``pynsqlookupd`` command."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lookupd.options import Options
from pynsqd.runtime.command import Command


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the lookupd with ``argv`` (the process's arguments unless given) and return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return _COMMAND.main(arguments, prog or os.path.basename(sys.argv[0]))


def _defaults() -> Mapping[str, Any]:
    return {"broadcast-address": os.uname().nodename}


def _serve(options: Options) -> None:
    # Imported here so that --version, --help and refusals do not pay for the daemon.
    from lookupd.daemon import serve  # noqa: PLC0415
    from pynsqd.runtime.lifecycle import run  # noqa: PLC0415

    run(serve, options)


_COMMAND = Command("pynsqlookupd", "nsqlookupd", Options, _defaults, lambda options: options, _serve)
