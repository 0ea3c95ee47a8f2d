"""Damage that is set aside: no bytes are lost by it, and none are kept twice."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from pynsqd.storage import quarantine
from pynsqd.storage.log_store import LogStore
from pynsqd.storage.quarantine import Quarantine, set_aside
from pynsqd.storage.removal import Removal
from pynsqd.storage.topic_log import is_ours
from pynsqd.wire.errors import StorageError
from tests.support.batches import Batches
from tests.support.failing_files import FailingFiles


def _reads(data: bytes) -> Callable[[int, int], bytes]:
    return lambda at, length: data[at : at + length]


def _kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_other_bytes_of_a_place_are_kept_beside_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(quarantine, "_CHUNK", chunk)
    folder = tmp_path / "bad"
    names = [f"{7:020d}.bad", f"{7:020d}-1.bad", f"{7:020d}-2.bad", f"{7:020d}-3.bad"]
    texts = [b"first damage", b"other damage", b"other damage!", b"other"]
    for _ in range(2):
        for name, data in zip(names, texts, strict=True):
            assert set_aside(folder, 7, len(data), _reads(data)) == folder / name
    assert _kept(folder) == dict(zip(names, texts, strict=True))
    assert set_aside(folder, 8, 5, _reads(b"other")) == folder / f"{8:020d}.bad"


def test_what_could_not_be_kept_whole_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FailingFiles(monkeypatch).full_after(4)
    with pytest.raises(OSError, match="No space left"):
        set_aside(tmp_path, 7, 6, _reads(b"damage"))
    assert list(tmp_path.iterdir()) == []

    def unreadable(_at: int, _length: int) -> bytes:
        raise StorageError("open 0.seg: too many open files")

    with pytest.raises(StorageError):
        set_aside(tmp_path, 7, 6, unreadable)
    assert list(tmp_path.iterdir()) == []


def test_damage_of_the_same_place_after_a_restart(tmp_path: Path) -> None:
    """The same damage is met at every start until the file goes; then somebody damages it once more."""
    store, batches = LogStore(tmp_path, 1 << 20, lambda _topic, _text: None), Batches()
    log = store.open("t")
    for _ in range(3):
        log.append(batches.new())
    (path,) = (tmp_path / "topics/t.log").glob("*.seg")
    raw = bytearray(path.read_bytes())
    damaged = []
    for damage in (b"?", b"?", b"!"):
        log.close()
        raw[64:65] = damage
        path.write_bytes(raw)
        log = store.open("t")
        log.read(0, log.end, 1 << 20)
        assert log.damaged_records == 1
        damaged.append(bytes(raw[32 : (len(raw) - 32) // 3 + 32]))
    log.close()
    assert _kept(path.parent / "bad") == {f"{32:020d}.bad": damaged[0], f"{32:020d}-1.bad": damaged[2]}


def test_a_file_that_is_set_aside_takes_nobodys_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogStore(tmp_path, 1 << 20, lambda _topic, _text: None).open("t")
    log.append(Batches().new())
    (path,) = (tmp_path / "topics/t.log").glob("*.seg")
    data = path.read_bytes()
    aside = path.parent / "bad"
    aside.mkdir()
    (aside / path.name).write_bytes(b"older")
    (aside / f"{path.stem}-1.seg").write_bytes(b"old")
    disk = FailingFiles(monkeypatch)
    disk.fail("pread", errno.EIO)
    log.read(0, log.end, 1 << 20)
    disk.heal()
    (segment,) = log._segments
    removal = Removal(tmp_path, is_ours, lambda _topic, _text: None)
    assert Quarantine(aside, "t", lambda _topic, _text: None, removal).retire(segment)
    assert not path.exists()
    kept = _kept(aside)
    assert (kept[path.name], kept[f"{path.stem}-1.seg"], kept[f"{path.stem}-2.seg"]) == (b"older", b"old", data)
