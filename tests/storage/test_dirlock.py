"""One node a folder."""

from pathlib import Path

import pytest

from pynsqd.storage.dirlock import DirLock
from pynsqd.wire.errors import StartupError


def test_one_at_a_time(tmp_path: Path) -> None:
    lock = DirLock(tmp_path)
    with pytest.raises(
        StartupError, match=f"cannot flock directory {tmp_path} - .*possibly in use by another instance"
    ):
        DirLock(tmp_path)
    lock.release()
    DirLock(tmp_path).release()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        StartupError, match=f"failed to lock data-path: open {tmp_path}/none: no such file or directory"
    ):
        DirLock(tmp_path / "none")
