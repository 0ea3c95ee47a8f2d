"""Files of version 1 in ``version_1``, written by the last release that wrote them, are read and left as they are."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynsqd.core.log import bucket_of
from pynsqd.storage.format import VERSION
from pynsqd.storage.log_store import LogStore
from pynsqd.storage.segment import read_header
from pynsqd.wire.constants import MESSAGE_HEADER
from pynsqd.wire.encoder import attempts, message_id, split_frames, timestamp_ns
from pynsqd.wire.errors import StartupError
from tests.support.batches import WALL_NS, Batches, joined

FILES = Path(__file__).parent / "version_1"
SEGMENT = "topics/orders.log/00000000000000000000.seg"
# What the release appended, one after the other; the imported ones in the wrong order.
BODIES = [b"lone", b"a", b"bb", b"ccc", b"imported 1", b"imported 0", *[b"part one"] * 30, *[b"part two"] * 3, b"last"]
IDS = Batches().new(len(BODIES) + 1).ids
IDS[4:6] = IDS[5], IDS[4]
LATER = IDS.pop()  # of the deferred one


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    store = LogStore(tmp_path, 1 << 20, lambda topic, text: pytest.fail(f"{topic}: {text}"))
    yield store
    store.close()


def test_the_log_is_read_and_goes_on_in_a_new_file(store: LogStore, tmp_path: Path) -> None:
    log = store.open("orders")
    end, new = log.end, Batches().new(2)
    assert log.end_sequence == len(BODIES)
    log.append(new)
    log.close()
    assert (tmp_path / SEGMENT).read_bytes() == (FILES / SEGMENT).read_bytes()
    assert [read_header(tmp_path / "topics/orders.log" / f"{at:020d}.seg").version for at in (0, end)] == [1, VERSION]  # type: ignore[union-attr]
    log = store.open("orders")
    batches, position, sequence = log.read(0, log.end, 1 << 20)
    more, position, sequence = log.read(position, log.end, 1 << 20)
    ids, frames = joined(batches + more)
    assert (position, sequence) == (log.end, len(BODIES) + 2)
    assert ids == [message_id(frame) for frame in split_frames(frames)] == IDS + new.ids
    assert [frame[MESSAGE_HEADER:] for frame in split_frames(frames)][:-2] == BODIES
    assert {(timestamp_ns(frame), attempts(frame)) for frame in split_frames(frames)} == {(WALL_NS, 1)}
    assert next(iter(log.fetch(0, [IDS[3]]).values()))[MESSAGE_HEADER:] == b"ccc"
    ((channel, owed),) = log.owed_since(0)
    assert (channel, owed.ids, attempts(owed.frames)) == ("worker", [IDS[3]], 4)
    log.close()


def test_a_torn_append_is_cut_off(store: LogStore, tmp_path: Path) -> None:
    whole = (FILES / SEGMENT).read_bytes()
    (tmp_path / SEGMENT).write_bytes(whole[:-1])
    log = store.open("orders")
    assert log.end_sequence == len(BODIES) - 1
    new = Batches().new(1)
    log.append(new)
    batches, position, _ = log.read(0, new.position, 1 << 20)
    assert len(joined(batches)[0]) == len(BODIES) - 1
    assert joined(log.read(position, log.end, 1 << 20)[0]) == joined([new])
    log.close()


def test_deferred_messages_are_read_and_go_on(store: LogStore) -> None:
    deferred = store.open_deferred("orders")
    due_ns = WALL_NS + 5 * 10**9
    assert deferred.next_serial == 1
    deferred.append("worker", due_ns + 1, Batches().new(1).frames, 1)
    first, second = deferred.load(bucket_of(due_ns))
    assert (first.channel, first.due_wall_ns, first.ids) == ("worker", due_ns, [LATER])
    assert (second.serial, second.due_wall_ns) == (1, due_ns + 1)
    deferred.close()


def test_the_release_that_wrote_them_refuses_ours(
    store: LogStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = store.open("orders")
    log.append(Batches().new(1))
    log.close()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("pynsqd.storage.segment.VERSION", 1)
    with pytest.raises(StartupError, match="is of version 2, this is version 1"):
        store.open("orders")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
