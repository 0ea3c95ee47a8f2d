"""The metadata file: whole or not at all."""

from pathlib import Path
from typing import Any

import msgpack
import pytest

from pynsqd.storage.metadata import FILE_NAME, ChannelMeta, TopicMeta, load, save
from pynsqd.wire.errors import StartupError, StorageError

_TOPICS = [
    TopicMeta("a", True, "fsync", (ChannelMeta("c", True), ChannelMeta("d", False))),
    TopicMeta("b", False, "memory", ()),
]


def test_round_trip(tmp_path: Path) -> None:
    assert load(tmp_path) == []
    save(tmp_path, _TOPICS)
    assert load(tmp_path) == _TOPICS
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_every_cut_is_refused(tmp_path: Path) -> None:
    save(tmp_path, _TOPICS)
    raw = (tmp_path / FILE_NAME).read_bytes()
    for size in range(len(raw)):
        (tmp_path / FILE_NAME).write_bytes(raw[:size])
        with pytest.raises(StartupError, match="failed to load metadata"):
            load(tmp_path)


def _document(**topic: Any) -> dict[str, Any]:
    return {"version": 1, "topics": [{"name": "t", "paused": False, "durability": "log", "channels": []} | topic]}


@pytest.mark.parametrize(
    "document",
    [
        _document(name="no name!"),
        _document(name=1),
        _document(durability="disk"),
        _document(channels=None),
        _document(channels=[{"name": "c"}]),
        {"version": "1", "topics": []},
        {"topics": []},
        [],
    ],
)
def test_nonsense_is_refused(document: Any, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(msgpack.packb(document))
    with pytest.raises(StartupError, match="failed to parse metadata in"):
        load(tmp_path)


def test_a_failed_save_leaves_what_was(tmp_path: Path) -> None:
    save(tmp_path, _TOPICS)
    (tmp_path / f"{FILE_NAME}.tmp").mkdir()
    with pytest.raises(StorageError):
        save(tmp_path, [])
    assert load(tmp_path) == _TOPICS


def test_a_later_version(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(msgpack.packb({"version": 2, "topics": []}))
    with pytest.raises(StartupError, match="is of version 2, this is version 1"):
        load(tmp_path)
