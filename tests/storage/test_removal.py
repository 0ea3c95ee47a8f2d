"""Files that are removed: gone at once by name, unlinked in a thread, and never back, whenever the node dies."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from time import monotonic, sleep

import pytest

from pynsqd.storage import removal as module
from pynsqd.storage.removal import Removal
from tests.support.failing_files import FailingFiles


class Bench:
    """A folder with a topic in it, and lives of a node that removes from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.removed = folder / "removed"
        self.reports: list[tuple[str, str]] = []
        self.lives: list[Removal] = []
        self.live()

    def live(self) -> Removal:
        """Begin another life, as after a kill."""
        self.lives.append(Removal(self.removed, lambda name, _: name.startswith("our"), self._report))
        return self.lives[-1]

    def _report(self, topic: str, text: str) -> None:
        self.reports.append((topic, text))

    def remove(self, path: Path, topic: str = "a.b") -> None:
        self.lives[-1].remove(path, topic)

    def close(self) -> None:
        for life in self.lives:
            life.close()

    def file(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def _removers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "remove"}


def test_names_go_at_once_and_one_thread_unlinks_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _removers()
    go_on = FailingFiles(monkeypatch).hold("unlink")
    for number in range(50):
        bench.remove(bench.file(f"{number}.seg"))
    for number in range(10):
        bench.file(f"t.log/ours{number}")
        bench.file(f"t.log/our folder/ours{number}")
    bench.remove(bench.folder / "t.log")
    assert os.listdir(bench.folder) == ["removed"]
    assert len(os.listdir(bench.removed)) == 51
    assert len(_removers() - before) == 1
    go_on.set()
    bench.close()
    assert os.listdir(bench.removed) == []
    assert _removers() <= before
    assert bench.reports == []


def test_what_a_kill_leaves_goes_with_the_next_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was about to unlink; and names of another life are in nobody's way."""
    go_on = FailingFiles(monkeypatch).hold("unlink")
    bench.remove(bench.file("1.seg"))
    bench.file("t.log/ours")
    bench.remove(bench.folder / "t.log")
    bench.file("removed/notes.txt")
    second = bench.live()
    bench.remove(bench.file("1.seg"))
    assert len(os.listdir(bench.removed)) == 4
    second.go_on()
    go_on.set()
    bench.close()
    assert os.listdir(bench.removed) == ["notes.txt"]
    assert bench.reports == []


def test_the_end_waits_for_what_can_be_unlinked_soon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than that is left to the next start; here nothing is soon enough but what is under way."""
    monkeypatch.setattr(module, "_CLOSE_S", -1.0)
    go_on = FailingFiles(monkeypatch).hold("unlink")
    for number in range(9):
        bench.file(f"t.log/ours{number}")
    bench.remove(bench.folder / "t.log")
    closing = threading.Thread(target=bench.close)
    closing.start()
    until = monotonic() + 60
    while bench.lives[0]._until_s == inf and monotonic() < until:
        sleep(0.001)
    go_on.set()
    closing.join(30)
    (left,) = bench.removed.iterdir()
    assert len(os.listdir(left)) == 8
    monkeypatch.undo()
    bench.live().go_on()
    bench.close()
    assert os.listdir(bench.removed) == []


def test_nothing_to_remove_makes_no_folder(bench: Bench) -> None:
    before = _removers()
    bench.remove(bench.folder / "t.log")
    bench.lives[0].go_on()
    assert os.listdir(bench.folder) == []
    assert _removers() <= before


@pytest.mark.parametrize("failing", ["rename", "mkdir"])
def test_a_disk_with_no_room_for_another_name(bench: Bench, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """To unlink needs none, so that is done at once: a disk that is full of what nobody needs must not stay full."""
    bench.file("t.log/ours")
    bench.file("t.log/our folder/ours")
    bench.file("1.seg")
    if failing == "rename":
        FailingFiles(monkeypatch).fail("rename", errno.ENOSPC)
    else:
        monkeypatch.setattr(module.files, "make_folder", _no_room)
    bench.remove(bench.folder / "t.log")
    bench.remove(bench.folder / "1.seg")
    assert os.listdir(bench.folder) == (["removed"] if failing == "rename" else [])


def _no_room(_folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_cannot_be_removed_is_still_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.file("1.seg")
    disk = FailingFiles(monkeypatch)
    disk.fail("rename")
    disk.fail("unlink")
    with pytest.raises(OSError, match="Input/output error"):
        bench.remove(path)
    assert path.exists()


def _unlink_fails(bench: Bench, disk: FailingFiles) -> str:
    disk.fail("unlink")
    return "input/output error"


def _not_ours(bench: Bench, disk: FailingFiles) -> str:
    bench.file("t.log/notes.txt")
    bench.file("t.log/a folder/ours")
    return "directory not empty"


@pytest.mark.parametrize("prepare", [_unlink_fails, _not_ours])
def test_what_the_thread_cannot_unlink_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Bench, FailingFiles], str]
) -> None:
    """By the topic, in this life and in the next; and it holds nothing else up."""
    bench.file("t.log/ours")
    why = prepare(bench, FailingFiles(monkeypatch))
    bench.remove(bench.folder / "t.log")
    bench.close()
    (left,) = bench.removed.iterdir()
    assert bench.reports == [("a.b", f"remove {left}: {why}")]
    assert (left / "notes.txt").exists() == (why == "directory not empty")
    assert (left / "a folder" / "ours").exists() == (why == "directory not empty")
    bench.file("removed/t.0123456789abcdef-1")
    bench.live().go_on()
    bench.close()
    assert bench.reports[1:2] == [("a.b", f"remove {left}: {why}")]
    assert (bench.removed / "t.0123456789abcdef-1").exists() == (why == "input/output error")


def test_a_folder_that_cannot_be_read_does_not_keep_the_node_from_starting(bench: Bench) -> None:
    bench.removed.write_bytes(b"no folder")
    bench.lives[0].go_on()
    assert bench.reports == [("", f"open {bench.removed}: not a directory")]
