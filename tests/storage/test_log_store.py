"""The logs of a node: which topics have files, and what cannot be opened."""

import errno
from pathlib import Path

import pytest

from pynsqd.storage.log_store import LogStore
from pynsqd.wire.errors import StorageError
from tests.support.batches import Batches
from tests.support.failing_files import FailingFiles

TOPIC = "orders"


@pytest.fixture
def store(tmp_path: Path) -> LogStore:
    return LogStore(tmp_path, 1 << 20, lambda _topic, _text: None)


def _write(store: LogStore, topic: str) -> None:
    log = store.open(topic)
    log.append(Batches().new())
    log.close()


def test_topics_are_those_with_files(store: LogStore, tmp_path: Path) -> None:
    assert store.topics() == []
    for name in ("a", "..", "b.log", "c"):
        _write(store, name)
    store.open("never written").close()
    (tmp_path / "topics" / "empty.log").mkdir()
    (tmp_path / "topics" / "no valid name!.log").mkdir()
    (tmp_path / "topics" / "no valid name!.log" / f"{0:020d}.seg").touch()
    (tmp_path / "topics" / "file.log").touch()
    (tmp_path / "topics" / "deferred.log" / "deferred").mkdir(parents=True)
    (tmp_path / "topics" / "deferred.log" / "deferred" / "1.def").touch()
    assert sorted(store.topics()) == ["..", "a", "b.log", "c", "deferred"]
    store.check()


def test_a_topic_whose_files_cannot_be_read(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(store, TOPIC)
    FailingFiles(monkeypatch).fail("open_file", errno.EACCES)
    with pytest.raises(StorageError, match=r"^open .*\.seg: permission denied$"):
        store.open(TOPIC)
    with pytest.raises(StorageError, match=r"^open .*\.seg: permission denied$"):
        store.check()
    monkeypatch.setattr("pynsqd.storage.files.list_folder", lambda _: (_ for _ in ()).throw(PermissionError(13, "No")))
    with pytest.raises(StorageError, match=r"^open .*orders\.log: no$"):
        store.open(TOPIC)
    with pytest.raises(StorageError, match=r"^open .*topics: no$"):
        store.topics()
