"""What is published to a topic in one turn becomes one batch and goes to the log in one append. Hot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pynsqd.core import published
from pynsqd.core.batch import Batch, Published
from pynsqd.core.gathered_batch import GatheredBatch
from pynsqd.core.log import MEMORY
from pynsqd.core.published import SIZE_SIZE
from pynsqd.core.publisher import Pending, Publisher
from pynsqd.wire.encoder import message_frames, sized
from pynsqd.wire.errors import Draining, StorageError

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.topic import Topic

# What was published in a turn is cut in batches of so many bytes: to frame 25,000 messages of 200 B in one go takes
# twice as long, since they leave the caches, and nobody else has a turn meanwhile.
_PART: Final = 1 << 16
_MOST_PARTS: Final = 256  # the system takes 1024 pieces in one write, and a record is two
_PIECE: Final = 1 << 13  # ... of pieces of about so many, if they are single messages


class Publishes:
    """Gathers them until the end of the turn, and commits them then."""

    __slots__ = ("_bodies", "_broker", "_counts", "_deferred", "_pieces", "_publishers", "_staged", "_topic")

    def __init__(self, topic: "Topic", broker: "Broker") -> None:
        self._broker = broker
        self._topic = topic
        # What this turn has brought: messages behind their sizes, how many in each piece, behind them single messages,
        # and who waits for a reply (with its index and the verb).
        self._pieces: list[bytes] = []
        self._counts: list[int] = []
        self._bodies: list[bytes] = []
        self._publishers: list[Pending] = []
        self._staged: list[Published] = []  # what is in the log already of the batch that is first
        self._deferred: list[tuple[bytes, int, Publisher, int, str]] = []

    def publish(self, body: bytes, publisher: Publisher, verb: str) -> None:
        """Publish ``body`` at the end of the turn; the last reply of ``publisher`` is the OK for it."""
        if not self._publishers:
            self._broker.publishing.append(self)
        self._bodies.append(body)
        self._publishers.append((publisher, len(publisher.replies) - 1, verb))

    def publish_batch(self, batch: GatheredBatch, publisher: Publisher, verb: str) -> None:
        """Publish the messages of ``batch``, all or nothing, at the end of the turn; see ``publish``."""
        if not self._publishers:
            self._broker.publishing.append(self)
            self._staged = batch.staged
        elif batch.staged:  # what comes first in the turn goes to the log first
            batch.take_back()
        if self._bodies:
            self._gather()
        self._pieces += batch.pieces
        self._counts += batch.counts
        self._publishers.append((publisher, len(publisher.replies) - 1, verb))

    def stage(self, batch: GatheredBatch, wall_ns: int) -> None:
        """Write what has come of a long batch to the log already, so that the turn that publishes it has less to do.

        The last piece is kept for then. Only one batch at a time is staged, and what else is appended meanwhile takes
        its place: then it is written again.
        """
        log = self._topic.log
        if log is None or self._topic.durability == MEMORY or len(batch.pieces) < 2:
            return
        if (batch.staged or log.staged) and not log.keeps(batch.staged):
            return
        try:
            log.stage(self._cut(batch.pieces[:-1], batch.counts[:-1], wall_ns))
        except StorageError:
            return  # as will be said if it still fails in the end
        batch.staged = log.staged
        del batch.pieces[:-1], batch.counts[:-1]

    def unstage(self, batch: GatheredBatch) -> None:
        """The rest of ``batch`` will not come."""
        log = self._topic.log
        if log is not None and log.keeps(batch.staged):
            log.unstage()

    def publish_deferred(self, body: bytes, delay_ns: int, publisher: Publisher, verb: str) -> None:
        """Publish ``body`` at the end of the turn, to be delivered ``delay_ns`` later and not before."""
        if not self._deferred:
            self._broker.publishing.append(self)
        self._deferred.append((body, delay_ns, publisher, len(publisher.replies) - 1, verb))

    def commit(self, now_ns: int, wall_ns: int) -> None:
        """Append what the turn has brought to the log and pass it on; publishers hear of a failure."""
        if self._broker.draining:
            self._refuse_all()
            return
        if self._publishers:
            publishers, self._publishers = self._publishers, []
            bodies = self._bodies
            log = self._topic.log
            size = sum(map(len, bodies)) + SIZE_SIZE * len(bodies)
            if self._pieces or size > _PART or (log is not None and log.staged):
                self._commit_pieces(publishers, wall_ns)
            elif bodies:
                self._bodies = []
                self._commit_batch(self._batch((sized(bodies),), len(bodies), wall_ns), publishers)
        if self._deferred:
            self._commit_all_deferred(now_ns, wall_ns)

    def _gather(self) -> None:
        """Make pieces of the single messages."""
        bodies, self._bodies = self._bodies, []
        count = max(1, _PIECE // (SIZE_SIZE + max(map(len, bodies))))
        for at in range(0, len(bodies), count):
            piece = bodies[at : at + count]
            self._pieces.append(sized(piece))
            self._counts.append(len(piece))

    def _refuse_all(self) -> None:
        """Drop what the turn has brought: the node takes no more messages."""
        publishers = self._publishers
        publishers += [(publisher, reply, verb) for _, _, publisher, reply, verb in self._deferred]
        self.drop()
        self._refuse(publishers, Draining())

    def drop(self) -> None:
        """Forget what the turn has brought."""
        self._pieces, self._counts, self._bodies, self._publishers, self._deferred = [], [], [], [], []
        self._staged = []

    def _cut(self, pieces: list[bytes], counts: list[int], wall_ns: int) -> list[Published]:
        """Make batches of much that was published in one turn."""
        enough = max(_PART, sum(map(len, pieces)) // _MOST_PARTS)
        batches = []
        first = size = 0
        for behind, piece in enumerate(pieces, 1):
            size += len(piece)
            if size >= enough or behind == len(pieces):
                batches.append(self._batch(pieces[first:behind], sum(counts[first:behind]), wall_ns))
                first, size = behind, 0
        return batches

    def _batch(self, pieces: Sequence[bytes], count: int, wall_ns: int) -> Published:
        head = published.pack_head(self._broker.ids.take_first(count, wall_ns), wall_ns)
        return Published(head, b"".join(pieces), count)

    def _commit_batch(self, batch: Published, publishers: list[Pending]) -> None:
        """Commit what is one batch, as nearly all turns bring."""
        topic = self._topic
        if topic.log is not None and (topic.durability != MEMORY or topic.must_log(batch.count)):
            try:
                topic.log.append(batch)
            except StorageError as error:
                self._refuse(publishers, error)
                return
            topic.appended(publishers)
        topic.put(batch)

    def _commit_pieces(self, publishers: list[Pending], wall_ns: int) -> None:
        """Commit what is more, or is staged in part, or takes the place of something that is."""
        if self._bodies:
            self._gather()
        pieces, counts, staged = self._pieces, self._counts, self._staged
        self._pieces, self._counts, self._staged = [], [], []
        log = self._topic.log
        if log is not None and not log.keeps(staged):
            if staged:
                batch = GatheredBatch(pieces, counts)
                batch.staged = staged
                batch.take_back()
                pieces, counts, staged = batch.pieces, batch.counts, []
            log.unstage()
        if not pieces:
            return
        batches = self._cut(pieces, counts, wall_ns) if len(pieces) > 1 else [self._batch(pieces, counts[0], wall_ns)]
        if staged or len(batches) > 1:
            self._commit_batches(tuple(staged), batches, publishers)
        else:
            self._commit_batch(batches[0], publishers)

    def _commit_batches(
        self, staged: tuple[Published, ...], batches: list[Published], publishers: list[Pending]
    ) -> None:
        """Commit batches, behind those that are ``staged``, all or nothing."""
        topic = self._topic
        coming = sum(one.count for one in (*staged, *batches))
        if topic.log is not None and (topic.durability != MEMORY or staged or topic.must_log(coming)):
            try:
                if len(batches) > 1:
                    topic.log.stage(batches[:-1])
                topic.log.append(batches[-1])
            except StorageError as error:
                self._refuse(publishers, error)
                return
            topic.appended(publishers)
        for one in (*staged, *batches):
            coming -= one.count
            topic.put(one, coming)

    def _commit_all_deferred(self, now_ns: int, wall_ns: int) -> None:
        deferred, self._deferred = self._deferred, []
        together: dict[int, tuple[list[bytes], list[Pending]]] = {}
        for body, delay_ns, publisher, reply, verb in deferred:
            bodies, publishers = together.setdefault(delay_ns, ([], []))
            bodies.append(body)
            publishers.append((publisher, reply, verb))
        for delay_ns, (bodies, publishers) in together.items():
            self._commit_deferred(bodies, now_ns + delay_ns, publishers, wall_ns)

    def _commit_deferred(self, bodies: list[bytes], due_ns: int, publishers: list[Pending], wall_ns: int) -> None:
        """Commit what is due at one time: it is one record, so one write."""
        ids = self._broker.ids.take(len(bodies), wall_ns)
        batch = Batch(ids, message_frames(ids, bodies, wall_ns), fresh=False)
        topic = self._topic
        keep = topic.keeps(-1)
        try:
            topic.deferrals.publish(due_ns, batch, keep=keep)
        except StorageError as error:
            self._refuse(publishers, error)
            return
        if keep:
            topic.appended(publishers)
        topic.message_count += len(bodies)
        topic.message_bytes += sum(map(len, bodies))

    def _refuse(self, publishers: list[Pending], error: StorageError) -> None:
        self._broker.refused_count += len(publishers)
        if not isinstance(error, Draining):
            self._broker.report_failure(self._topic, error)
        for publisher, reply, verb in publishers:
            publisher.publish_failed(reply, verb, error)
