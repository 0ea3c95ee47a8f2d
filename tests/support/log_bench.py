"""The log of one topic in a folder of its own, for the tests of what reads and writes it."""

from pathlib import Path

from pynsqd.core.batch import Batch
from pynsqd.storage.log_store import LogStore
from pynsqd.storage.topic_log import TopicLog
from tests.support.batches import Batches

TOPIC = "orders"
HEADER = 32  # bytes, of a segment and of a record
FRAME = 34  # bytes of a message frame before the body
MIB = 1 << 20


class LogBench:
    """A log that can be opened again, and what it reported."""

    def __init__(self, path: Path, max_bytes: int = MIB) -> None:
        self.batches = Batches()
        self.reports: list[tuple[str, str]] = []
        self.store = LogStore(path, max_bytes, lambda topic, text: self.reports.append((topic, text)))
        self.folder = path / "topics" / f"{TOPIC}.log"
        self.log = self.store.open(TOPIC)

    def reopen(self, known_end: int = -1, known_sequence: int = 0) -> TopicLog:
        """Leave the log as a kill does and open it again."""
        self.log.close()
        self.log = self.store.open(TOPIC, known_end, known_sequence)
        return self.log

    def close(self) -> None:
        self.log.close()
        self.store.close()

    def append(self, *batches: Batch) -> list[int]:
        for batch in batches:
            self.log.append(batch)
        return [batch.position for batch in batches]

    def read_all(self, position: int = 0, max_bytes: int = MIB) -> list[Batch]:
        """Read up to the end, piece by piece."""
        batches: list[Batch] = []
        while position < self.log.end:
            some, position, _ = self.log.read(position, self.log.end, max_bytes)
            batches += some
        return batches

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.seg"))

    def bad(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "bad").glob("*")}
