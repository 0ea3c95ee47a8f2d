"""Batches for tests of the storage."""

from pynsqd.core.batch import Batch
from pynsqd.core.ids import IdGenerator
from pynsqd.wire.encoder import message_frames

WALL_NS = 1_700_000_000_000_000_000


class Batches:
    """Makes batches with new ids, as a topic does."""

    def __init__(self) -> None:
        self._ids = IdGenerator(7)

    def of(self, bodies: list[bytes]) -> Batch:
        """Return a batch of messages with these bodies."""
        ids = self._ids.take(len(bodies), WALL_NS)
        return Batch(ids, message_frames(ids, bodies, WALL_NS))

    def new(self, count: int = 1, size: int = 20) -> Batch:
        """Return a batch of ``count`` messages with bodies of ``size`` bytes."""
        return self.of([b"%0*d" % (size, number) for number in range(count)])


def joined(batches: list[Batch]) -> tuple[list[bytes], bytes]:
    """Return the ids and the frames of all batches, one after the other."""
    return [one for batch in batches for one in batch.ids], b"".join(batch.frames for batch in batches)
