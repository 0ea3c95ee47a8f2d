"""The metadata file: whole or not at all."""

from pathlib import Path
from typing import Any

import msgpack
import pytest

from pynsqd.storage.metadata import FILE_NAME, ChannelMeta, TopicMeta, append, load, save
from pynsqd.wire.errors import StartupError, StorageError
from tests.support.failing_files import FailingFiles

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


@pytest.mark.parametrize("name", ["open_file", "writev", "fsync", "rename"])
def test_a_failed_save_leaves_what_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, _TOPICS)
    failing = FailingFiles(monkeypatch)
    failing.fail(name)
    with pytest.raises(StorageError, match=rf"write .*/{FILE_NAME}: input/output error"):
        save(tmp_path, [])
    assert load(tmp_path) == _TOPICS
    failing.heal()
    save(tmp_path, [])
    assert load(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("room", [0, 1, 70])
def test_a_full_disk_leaves_what_was(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, _TOPICS[:1])
    FailingFiles(monkeypatch).full_after(room)
    with pytest.raises(StorageError, match="no space left on device"):
        save(tmp_path, _TOPICS)
    assert load(tmp_path) == _TOPICS[:1]


def test_a_save_is_no_success_before_its_name_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FailingFiles(monkeypatch).fail("fsync", after=1)
    with pytest.raises(StorageError):
        save(tmp_path, _TOPICS)


def test_a_save_goes_on_where_a_write_was_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FailingFiles(monkeypatch).write_at_most(7)
    save(tmp_path, _TOPICS)
    assert load(tmp_path) == _TOPICS


def test_a_later_version(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(msgpack.packb({"version": 2, "topics": []}))
    with pytest.raises(StartupError, match="is of version 2, this is version 1"):
        load(tmp_path)


# -- what is appended


def test_changes_come_on_top(tmp_path: Path) -> None:
    save(tmp_path, _TOPICS)
    append(tmp_path, [("b", "", TopicMeta("b", True, "log", ())), ("b", "e", ChannelMeta("e", True))], sync_now=False)
    append(tmp_path, [("a", "c", None), ("n", "", TopicMeta("n", False, "log", ()))], sync_now=True)
    append(tmp_path, [("n", "", None), ("gone", "c", None), ("gone", "", None)], sync_now=False)
    assert load(tmp_path) == [
        TopicMeta("a", True, "fsync", (ChannelMeta("d", False),)),
        TopicMeta("b", True, "log", (ChannelMeta("e", True),)),
    ]


def _appended(folder: Path) -> tuple[bytes, int, int]:
    """Save topic s, append u, then v; return the content of the file, and where u and v begin."""
    begin = save(folder, [TopicMeta("s", False, "log", ())])
    middle = begin + append(folder, [("u", "", TopicMeta("u", False, "log", ()))], sync_now=False)
    append(folder, [("v", "", TopicMeta("v", False, "log", ()))], sync_now=False)
    return (folder / FILE_NAME).read_bytes(), begin, middle


def test_an_append_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    raw, begin, middle = _appended(tmp_path)
    for size in range(begin, len(raw)):
        (tmp_path / FILE_NAME).write_bytes(raw[:size])
        assert [one.name for one in load(tmp_path, pytest.fail)] == (["s", "u"] if size >= middle else ["s"])


@pytest.mark.parametrize("bit", range(8))
def test_damage_costs_the_record_it_is_in(bit: int, tmp_path: Path) -> None:
    """Also where the length seems to lead beyond the end of the file."""
    raw, begin, middle = _appended(tmp_path)
    for at in range(begin, len(raw)):
        (tmp_path / FILE_NAME).write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])
        said: list[str] = []
        assert [one.name for one in load(tmp_path, said.append)] == (["s", "u"] if at >= middle else ["s", "v"])
        size = len(raw) - middle if at >= middle else middle - begin
        assert said == [f"{size} bytes of {tmp_path / FILE_NAME} are damaged and are left out"]


def test_zeros_at_the_end_are_damage(tmp_path: Path) -> None:
    """As a loss of power may leave them."""
    raw, _, middle = _appended(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(raw[:middle] + bytes(len(raw) - middle))
    said: list[str] = []
    assert [one.name for one in load(tmp_path, said.append)] == ["s", "u"]
    assert said == [f"{len(raw) - middle} bytes of {tmp_path / FILE_NAME} are damaged and are left out"]


def test_a_torn_append_is_no_damage_behind_damage(tmp_path: Path) -> None:
    raw, begin, middle = _appended(tmp_path)
    third = append(tmp_path, [("w", "", TopicMeta("w", False, "log", ()))], sync_now=False)
    whole = (tmp_path / FILE_NAME).read_bytes()
    for size in range(third):
        (tmp_path / FILE_NAME).write_bytes(whole[:begin] + b"\xff" + whole[begin + 1 : len(raw) + size])
        said: list[str] = []
        assert [one.name for one in load(tmp_path, said.append)] == ["s", "v"]
        assert said == [f"{middle - begin} bytes of {tmp_path / FILE_NAME} are damaged and are left out"]


def test_a_channel_of_a_topic_that_damage_has_taken(tmp_path: Path) -> None:
    """The messages of the channel would be lost with it."""
    begin = save(tmp_path, [])
    append(tmp_path, [("t", "", TopicMeta("t", True, "fsync", ()))], sync_now=False)
    append(tmp_path, [("t", "c", ChannelMeta("c", True))], sync_now=False)
    raw = bytearray((tmp_path / FILE_NAME).read_bytes())
    raw[begin] ^= 0x80
    (tmp_path / FILE_NAME).write_bytes(raw)
    assert load(tmp_path, durability="memory") == [TopicMeta("t", False, "memory", (ChannelMeta("c", True),))]


def test_nothing_is_appended_to_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"write .*: no such file"):
        append(tmp_path, [("t", "", None)], sync_now=False)
    assert list(tmp_path.iterdir()) == []
