"""Batches for tests of the storage."""

from pynsqd.core import published
from pynsqd.core.batch import Batch, Published
from pynsqd.core.ids import IdGenerator
from pynsqd.wire.encoder import sized

WALL_NS = 1_700_000_000_000_000_000


class Batches:
    """Makes batches with new ids, as a topic does."""

    def __init__(self) -> None:
        self._ids = IdGenerator(7)

    def of(self, bodies: list[bytes]) -> Published:
        """Return a batch of messages with these bodies."""
        first_id = self._ids.take_first(len(bodies), WALL_NS)
        return Published(published.pack_head(first_id, WALL_NS), sized(bodies), len(bodies))

    def new(self, count: int = 1, size: int = 20) -> Published:
        """Return a batch of ``count`` messages with bodies of ``size`` bytes."""
        return self.of([b"%0*d" % (size, number) for number in range(count)])


def broken(batch: Published, count: int) -> Published:
    """Return ``batch`` as if it had ``count`` messages: its record will have the right checksum, and be wrong."""
    return Published(batch.head, batch.messages, count)


def record_size(batch: Batch) -> int:
    """Return the bytes of the record that ``batch`` is in the log: its header, stamp and id, and sized bodies."""
    return 32 + 24 + batch.size - 30 * len(batch)


def joined(batches: list[Batch]) -> tuple[list[bytes], bytes]:
    """Return the ids and the frames of all batches, one after the other."""
    return [one for batch in batches for one in batch.ids], b"".join(batch.frames for batch in batches)
