"""The segment files of a topic, damaged in any way while the node was down.

The bytes decide what is written and what is done to the files then: bits flipped, cuts, holes, slices that come twice
or in another place, files that are gone or replaced by anything.
"""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pynsqd.core.batch import Batch
from pynsqd.storage.format import pack_segment_header
from pynsqd.storage.log_store import LogStore
from pynsqd.storage.topic_log import TopicLog
from pynsqd.wire.encoder import message_id, split_frames
from tests.fuzz.damage import damage
from tests.fuzz.dice import Dice
from tests.support.batches import Batches

_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
_TOPIC = "t"
_FILES = _FOLDER / "topics" / f"{_TOPIC}.log"


def seeds() -> Iterable[bytes]:
    """Return plans: how much is written, and each damage alone."""
    appends = bytes([6, 0, 2, 20, 1, 1, 3, 0, 3, 40, 2, 0, 0, 9, 9, 4, 30, 2, 200, 0, 1, 5])
    for kind in range(9):
        yield appends + bytes([kind, 1, 0, 90]) * 2
    header = pack_segment_header(7, 0, 0)
    yield bytes([0, 0, 0]) + bytes([6, 0]) + header + b"\xfb\xd1" + b"x" * 40


def run(data: bytes) -> None:
    """Raise if the log cannot be opened, gives what was not written or gives it twice, or misses what is undamaged."""
    shutil.rmtree(_FOLDER / "topics", ignore_errors=True)
    dice = Dice(data)
    batches = Batches()
    store = LogStore(_FOLDER, 600, lambda *_: None)
    log = store.open(_TOPIC)
    written = _write(log, dice, batches)
    log.close()
    untouched = damage(sorted(_FILES.glob("*.seg")), dice)
    expected = {one for path, ids in written.by_file.items() if path in untouched for one in ids}

    log = store.open(_TOPIC, written.end, len(written.frames))
    assert log.end >= written.end, "positions are used again"
    found = _read(log, dice)
    assert len(set(found)) == len(found), "a message comes twice"
    assert found == sorted(found, key=list(written.frames).index), "out of order"
    missing = expected - set(found)
    assert not missing, missing
    assert log.end_sequence >= len(written.frames)
    for batch in (batch for _, batch in log.owed_since(log.start)):
        written.check(batch, split_frames(batch.frames))

    after = batches.new(2)
    log.append(after)
    log.close()
    again = store.open(_TOPIC)
    assert _read(again, dice)[-2:] == after.ids, "what came after the damage is lost"
    again.close()
    again.delete()


class _Written:
    """What the log was given, and in which file it is."""

    def __init__(self) -> None:
        self.frames: dict[bytes, bytes] = {}
        self.owed: dict[bytes, bytes] = {}
        self.by_file: dict[Path, list[bytes]] = {}
        self.end = 0

    def check(self, batch: Batch, frames: list[bytes]) -> None:
        for one, frame in zip(batch.ids, frames, strict=True):
            assert message_id(frame) == one
            assert frame in (self.frames.get(one), self.owed.get(one)), "not what was written"


def _write(log: TopicLog, dice: Dice, batches: Batches) -> _Written:
    written = _Written()
    for _ in range(dice.below(12)):
        owed = dice.below(4) == 3
        batch = batches.new(1 + dice.below(4), 1 + dice.below(250))
        if owed:
            log.append_owed("c", batch.frames, len(batch.ids))
            written.owed |= zip(batch.ids, split_frames(batch.frames), strict=True)
        else:
            log.append(batch)
            written.frames |= zip(batch.ids, split_frames(batch.frames), strict=True)
            last = max(_FILES.glob("*.seg"))
            written.by_file.setdefault(last, []).extend(batch.ids)
    written.end = log.end
    return written


def _read(log: TopicLog, dice: Dice) -> list[bytes]:
    found = []
    position = log.start
    size = 1 + dice.below(1000)
    while position < log.end:
        read, following, _ = log.read(position, log.end, size)
        assert following > position, "no progress"
        position = following
        for batch in read:
            frames = split_frames(batch.frames)
            assert [message_id(frame) for frame in frames] == batch.ids
            fetched = log.fetch(batch.position, batch.ids)
            assert [fetched[one] for one in batch.ids] == frames
            found += batch.ids
    return found
