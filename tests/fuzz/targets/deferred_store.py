"""The files of deferred messages, damaged in any way while the node was down; see topic_log."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pynsqd.core.log import DeferredRecord, bucket_of
from pynsqd.storage.log_store import LogStore
from pynsqd.wire.encoder import split_frames
from tests.fuzz.damage import damage
from tests.fuzz.dice import Dice
from tests.support.batches import WALL_NS, Batches

_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
_TOPIC = "t"
_FILES = _FOLDER / "topics" / f"{_TOPIC}.log" / "deferred"
_BUCKET_NS = 1 << 36


def seeds() -> Iterable[bytes]:
    """Return plans: how much is written, and each damage alone."""
    for damages in range(9):
        yield bytes([6, 0, 2, 20, 1, 1, 3, 0, 3, 40, 2, 0, 0, 9, 2, 1, 30, 1, 2, 200, 0, 1, 5]) + bytes(
            [0, damages, 50, 9]
        )


def run(data: bytes) -> None:
    """Raise if the store cannot be opened, gives what was not kept or gives it twice, or misses what is undamaged."""
    shutil.rmtree(_FOLDER / "topics", ignore_errors=True)
    dice = Dice(data)
    batches = Batches()
    logs = LogStore(_FOLDER, 1 << 20, lambda *_: None)
    store = logs.open_deferred(_TOPIC)
    kept: dict[int, DeferredRecord] = {}
    for _ in range(dice.below(12)):
        channel = ("", "c")[dice.below(2)]
        due_ns = WALL_NS + dice.below(4) * _BUCKET_NS
        batch = batches.new(1 + dice.below(3), 1 + dice.below(250))
        serial = store.next_serial
        position = store.append(channel, due_ns, batch.frames, len(batch.ids))
        kept[serial] = DeferredRecord(serial, channel, due_ns, position, batch.ids, batch.frames)
    store.close()
    untouched = damage(sorted(_FILES.glob("*.def")), dice)

    store = logs.open_deferred(_TOPIC, len(kept))
    assert store.next_serial >= len(kept), "serials are used again"
    loaded = [record for bucket in store.buckets() for record in store.load(bucket)]
    assert len({record.serial for record in loaded}) == len(loaded), "a record comes twice"
    for record in loaded:
        assert record == kept[record.serial], "not what was kept"
        fetched = store.fetch(record.position, record.ids)
        assert [fetched[one] for one in record.ids] == split_frames(record.frames)
    expected = {serial for serial, record in kept.items() if _file_of(record) in untouched}
    assert expected <= {record.serial for record in loaded}
    half = len(kept) // 2
    since = [record.serial for bucket in store.buckets() for record in store.load(bucket, half)]
    assert sorted(since) == sorted(record.serial for record in loaded if record.serial >= half)

    batch = batches.new(2)
    store.append("c", WALL_NS, batch.frames, 2)
    store.close()
    again = logs.open_deferred(_TOPIC)
    assert batch.ids in [record.ids for record in again.load(bucket_of(WALL_NS))], "what came after the damage is lost"
    for bucket in again.buckets():
        again.drop(bucket)
    again.close()


def _file_of(record: DeferredRecord) -> Path:
    return _FILES / f"{bucket_of(record.due_wall_ns)}.def"
