"""The open descriptors: few, and those used last."""

from pathlib import Path

import pytest

from pynsqd.storage import files
from pynsqd.storage.descriptors import Descriptors
from tests.support.failing_files import FailingFiles


class File:
    """A file that is to be open now and then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open_flags = files.CREATE


def _files(folder: Path, count: int) -> list[File]:
    return [File(folder / str(number)) for number in range(count)]


def test_those_used_last_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFiles(monkeypatch)
    descriptors = Descriptors(limit=2)
    first, second, third = _files(tmp_path, 3)
    for _ in range(2):
        for one in (first, second, third):
            assert files.pread(descriptors.of(one), 1, 0) == b""
    assert (failing.calls["open_file"], failing.calls["close"]) == (6, 4)
    for one in (second, first, second):  # the second was used last but one, so it is open, and then used last
        descriptors.of(one)
    assert (failing.calls["open_file"], failing.calls["close"]) == (7, 5)
    for one in (first, second, third):
        descriptors.close(one)
    assert failing.calls["close"] == 7


def test_a_file_that_was_closed_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = Descriptors()
    (one,) = _files(tmp_path, 1)
    files.write_all(descriptors.of(one), [b"x"])
    one.open_flags = files.APPEND
    descriptors.close(one)
    descriptors.close(one)
    assert files.pread(descriptors.of(one), 2, 0) == b"x"
    descriptors.close(one)


def test_one_that_cannot_be_opened_is_an_error_and_no_other_is_closed(tmp_path: Path) -> None:
    descriptors = Descriptors(limit=1)
    (one,) = _files(tmp_path, 1)
    opened = descriptors.of(one)
    with pytest.raises(FileNotFoundError):
        descriptors.of(File(tmp_path / "no/file"))
    assert descriptors.of(one) == opened
    descriptors.close(one)


@pytest.mark.parametrize(("allowed", "kept"), [(16, 2), (48, 5), (-1, 5)])
def test_as_many_files_stay_open_as_the_process_can_spare(
    allowed: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-1 is no limit."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (allowed, allowed))
    descriptors = Descriptors()
    failing = FailingFiles(monkeypatch)
    opened = _files(tmp_path, 5)
    for one in opened:
        descriptors.of(one)
    assert failing.calls["close"] == 5 - kept
    for one in opened:
        descriptors.close(one)
