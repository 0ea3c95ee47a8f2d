"""The two checkpoint files."""

from pathlib import Path
from typing import Any

import msgpack
import pytest

from pynsqd.storage.checkpoint import _HEAD, FILE_NAMES, Checkpoint, _pack_head
from pynsqd.wire.errors import StartupError, StorageError


def _written(folder: Path, *states: dict[str, int]) -> None:
    checkpoint = Checkpoint(folder)
    for state in states:
        checkpoint.put("t", state)
        checkpoint.write(sync=True)
    checkpoint.close()


def _read(folder: Path) -> dict[str, dict[str, int]] | None:
    checkpoint = Checkpoint(folder)
    checkpoint.close()
    return checkpoint.states


def test_nothing_there(tmp_path: Path) -> None:
    assert _read(tmp_path) is None


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_newest_counts(count: int, tmp_path: Path) -> None:
    """Also when it is shorter than what its file held before, and when a new process writes on."""
    for number in range(count):
        _written(tmp_path, {"n": number} | dict.fromkeys(map(str, range(count - number)), 1))
    shown = _read(tmp_path)
    assert shown is not None
    assert shown["t"]["n"] == count - 1


def test_every_damaged_byte_of_the_newer_file_leaves_the_older(tmp_path: Path) -> None:
    _written(tmp_path, {"n": 1}, {"n": 2})
    newer = tmp_path / FILE_NAMES[0]
    raw = newer.read_bytes()
    for at in [*range(7), *range(16, len(raw))]:  # not the version, nor the generation, which the checksum leaves out
        newer.write_bytes(raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :])
        assert _read(tmp_path) == {"t": {"n": 1}}, at
    for size in range(len(raw)):
        newer.write_bytes(raw[:size])
        assert _read(tmp_path) == {"t": {"n": 1}}, size


def test_both_damaged(tmp_path: Path) -> None:
    _written(tmp_path, {"n": 1}, {"n": 2})
    for name in FILE_NAMES:
        (tmp_path / name).write_bytes(b"?")
    assert _read(tmp_path) is None


@pytest.mark.parametrize("body", [[], {"t": 1}, {1: b"\x80"}, {"t": b"\xc1"}, {"t": b"\x90"}, "t", None])
def test_a_whole_file_of_something_else_leaves_the_older(body: Any, tmp_path: Path) -> None:
    _written(tmp_path, {"n": 1})
    packed = msgpack.packb(body)
    (tmp_path / FILE_NAMES[0]).write_bytes(_pack_head(1, 2, packed) + packed)
    assert _read(tmp_path) == {"t": {"n": 1}}
    _written(tmp_path, {"n": 2})
    assert _read(tmp_path) == {"t": {"n": 2}}


def test_a_later_version(tmp_path: Path) -> None:
    _written(tmp_path, {"n": 1})
    path = tmp_path / FILE_NAMES[1]
    body = path.read_bytes()[_HEAD.size :]
    path.write_bytes(_pack_head(2, 1, body) + body)
    with pytest.raises(StartupError, match=f"{path} is of version 2, this is version 1"):
        Checkpoint(tmp_path)


def test_topics_that_are_gone(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.put("a", {})
    checkpoint.put("b", {})
    checkpoint.keep_only({"b"})
    checkpoint.write()
    checkpoint.close()
    assert _read(tmp_path) == {"b": {}}


def test_it_cannot_be_written(tmp_path: Path) -> None:
    """The other file stands, and the next write tries the same one again."""
    _written(tmp_path, {"n": 1})
    (tmp_path / FILE_NAMES[0]).mkdir()
    with pytest.raises(StartupError):
        Checkpoint(tmp_path)
    (tmp_path / FILE_NAMES[0]).rmdir()
    checkpoint = Checkpoint(tmp_path)
    checkpoint.put("t", {"n": 2})
    (tmp_path / FILE_NAMES[0]).mkdir()
    with pytest.raises(StorageError, match=r"write .*checkpoint\.0: is a directory"):
        checkpoint.write()
    (tmp_path / FILE_NAMES[0]).rmdir()
    assert _read(tmp_path) == {"t": {"n": 1}}
    checkpoint.write()
    checkpoint.close()
    assert _read(tmp_path) == {"t": {"n": 2}}


def test_only_for_its_owner(tmp_path: Path) -> None:
    _written(tmp_path, {})
    assert (tmp_path / FILE_NAMES[1]).stat().st_mode & 0o777 == 0o600
