"""The seam to the file system."""

import errno
import os
import stat
from pathlib import Path

import pytest

from pynsqd.storage import files
from tests.support.failing_files import FailingFiles


def test_files_and_folders_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    files.make_folder(folder)
    files.close(files.open_file(folder / "file", files.CREATE))
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o600


def test_a_new_folder_is_synced_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFiles(monkeypatch)
    files.make_folder(tmp_path / "one" / "two")
    assert failing.calls["fsync"] == 2
    files.make_folder(tmp_path / "one" / "two")
    assert failing.calls["fsync"] == 2


def test_new_folders_are_synced_into_their_parent_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFiles(monkeypatch)
    folders = files.NewFolders(tmp_path / "one")
    folders.make(tmp_path / "one" / "two")  # makes its parent too, which is synced at once
    before = failing.calls["fsync"]
    folders.make(tmp_path / "one" / "three")
    assert failing.calls["fsync"] == before
    failing.fail("fsync")
    with pytest.raises(OSError, match="Input/output"):
        folders.sync()
    failing.heal()
    folders.sync()
    folders.sync()
    folders.make(tmp_path / "one" / "two")
    folders.sync()
    assert failing.calls["fsync"] == before + 1


def test_lists_names_with_sizes(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"12345")
    (tmp_path / "a").mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    assert files.list_folder(tmp_path) == [("a", -1), ("b", 5)]
    assert files.list_folder(tmp_path / "none") == []


def test_write_all_goes_on_after_a_short_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FailingFiles(monkeypatch).write_at_most(3)
    descriptor = files.open_file(tmp_path / "file", files.CREATE)
    files.write_all(descriptor, [b"one two", b"", b" three"])
    files.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"one two three"


def test_write_all_does_not_wait_for_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "writev", lambda *_: 0)
    with pytest.raises(OSError, match="short write"):
        files.write_all(-1, [b"x"])


def test_write_all_says_why_a_write_was_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FailingFiles(monkeypatch).full_after(4)
    descriptor = files.open_file(tmp_path / "file", files.CREATE)
    with pytest.raises(OSError) as caught:
        files.write_all(descriptor, [b"12", b"345"])
    files.close(descriptor)
    assert caught.value.errno == errno.ENOSPC


def test_appends_at_the_end_whatever_else_moved_there(tmp_path: Path) -> None:
    descriptor = files.open_file(tmp_path / "file", files.CREATE)
    files.writev(descriptor, [b"12345"])
    files.truncate(descriptor, 2)
    files.writev(descriptor, [b"6"])
    assert files.pread(descriptor, 10, 0) == b"126"
    files.close(descriptor)


def test_probe_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.probe(tmp_path / "probe")
    assert os.listdir(tmp_path) == []
    for name in ("writev", "fdatasync"):
        failing = FailingFiles(monkeypatch)
        failing.fail(name)
        with pytest.raises(OSError):
            files.probe(tmp_path / "probe")
        assert os.listdir(tmp_path) == []
        failing.heal()


def test_failures_read_as_nsqds_do(tmp_path: Path) -> None:
    error = files.failure("write", Path("/data/x"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(error) == "write /data/x: no space left on device"
    assert str(files.failure("write", Path("/data/x"), OSError("odd"))) == "write /data/x: odd"
