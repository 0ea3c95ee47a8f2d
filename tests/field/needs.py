"""Programs of other people that tests/field runs, found or skipped with a reason; where CI=true a missing one fails."""

import os
import shutil
from glob import glob
from pathlib import Path
from typing import Final

import pytest

PEERS_BIN: Final = Path(__file__).parents[2] / "bench" / "peers" / "bin"
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where Debian puts daemons


def need(name: str) -> str:
    """Return the path of an installed program."""
    return _found(shutil.which(name, path=_PATH), f"no {name}")


def need_php_fpm() -> str:
    """Return the path of PHP-FPM, whose name has its version in it."""
    versions = sorted(found for folder in _PATH.split(":") for found in glob(f"{folder}/php-fpm*"))
    return _found(versions[-1] if versions else None, "no php-fpm")


def need_nsq(name: str) -> str:
    """Return the path of a program of module github.com/nsqio/nsq."""
    return _found(shutil.which(PEERS_BIN / name), f"bench/peers/build.sh has not built {name}")


def _found(path: str | None, complaint: str) -> str:
    if path is None:
        missing(complaint)
    return str(path)


def missing(complaint: str) -> None:
    """Skip the test, or fail it on CI."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(complaint)
