"""The ``pynsqd`` command."""

import hashlib
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from pynsqd.options import Options, checked
from pynsqd.runtime.command import Command

# Tools by the first argument, where nsqd's flags can have no such word. Not loaded to run the node.
_TOOLS: Final = {"log": "pynsqd.tools.log", "import-nsqd": "pynsqd.tools.import_nsqd"}


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the node, or a tool, with ``argv`` (the process's arguments unless given) and return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in _TOOLS:
        return int(import_module(_TOOLS[arguments[0]]).main(arguments[1:]))
    return _COMMAND.main(arguments, prog or os.path.basename(sys.argv[0]))


def default_node_id(hostname: str) -> int:
    """Give the node id of a host that was given none, the same as nsqd's (PROTOCOL 3.9)."""
    digest = hashlib.md5(os.fsencode(hostname), usedforsecurity=False).digest()
    return zlib.crc32(digest) % 1024


def _defaults() -> Mapping[str, Any]:
    hostname = os.uname().nodename
    return {"node-id": default_node_id(hostname), "broadcast-address": hostname}


def _serve(options: Options) -> None:
    # Imported here so that --version, --help and refusals do not pay for the broker.
    from pynsqd.daemon import serve  # noqa: PLC0415
    from pynsqd.runtime.lifecycle import run  # noqa: PLC0415

    run(serve, options)


_COMMAND = Command("pynsqd", "nsqd", Options, _defaults, checked, _serve)
