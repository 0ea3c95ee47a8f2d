"""What one consumer holds: delivered, not yet finished. Hot.

Every message of one consumer has the same timeout, so the order of delivery is the order of the deadlines and an
insertion-ordered dict is the queue: the entries that are due stand at its front. Only TOUCH near the ceiling
(--max-msg-timeout) breaks that order; such entries are also in a heap.
"""

from heapq import heappop, heappush
from itertools import groupby

from pynsqd.core.batch import Batch
from pynsqd.wire.encoder import split_frames


class Delivery:
    """Messages that went out together. One object a write, not one a message."""

    __slots__ = ("_by_id", "_frames", "_ids", "deadline_ns", "delivered_ns", "fresh", "position")

    def __init__(self, batch: Batch, delivered_ns: int, deadline_ns: int) -> None:
        self._ids = batch.ids
        self._frames = batch.frames
        self._by_id: dict[bytes, bytes] | None = None
        self.position = batch.position
        self.fresh = batch.fresh  # all of it was delivered for the first time
        self.delivered_ns = delivered_ns
        self.deadline_ns = deadline_ns

    def frame(self, message_id: bytes) -> bytes:
        """Return the frame of one of the messages; the first call cuts them all apart."""
        if self._by_id is None:
            self._by_id = dict(zip(self._ids, split_frames(self._frames), strict=True))
            self._frames = b""
        return self._by_id[message_id]


class InFlight:
    """Message id to the delivery it went out with, oldest first."""

    __slots__ = ("_capped", "entries")

    def __init__(self) -> None:
        self.entries: dict[bytes, Delivery] = {}
        self._capped: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, batch: Batch, now_ns: int, timeout_ns: int) -> None:
        """Note that ``batch`` goes out now."""
        self.entries.update(dict.fromkeys(batch.ids, Delivery(batch, now_ns, now_ns + timeout_ns)))

    def finish(self, ids: list[bytes]) -> int:
        """Drop ``ids`` in order; return how many, which is the index of the first that is not in flight."""
        entries = self.entries
        before = len(entries)
        try:
            for message_id in ids:
                del entries[message_id]
        except KeyError:
            return before - len(entries)
        return len(ids)

    def touch(self, message_id: bytes, now_ns: int, timeout_ns: int, max_timeout_ns: int) -> int:
        """Start the timeout of a message again, no further than ``max_timeout_ns`` after its delivery.

        Returns the new deadline in ns, 0 if the message is not in flight.
        """
        delivery = self.entries.get(message_id)
        if delivery is None:
            return 0
        ceiling_ns = delivery.delivered_ns + max_timeout_ns
        deadline_ns = min(now_ns + timeout_ns, ceiling_ns)
        if deadline_ns == delivery.deadline_ns:
            return deadline_ns
        del self.entries[message_id]
        alone = Batch([message_id], delivery.frame(message_id), delivery.position, fresh=delivery.fresh)
        self.entries[message_id] = Delivery(alone, delivery.delivered_ns, deadline_ns)
        if deadline_ns == ceiling_ns:
            heappush(self._capped, (deadline_ns, message_id))
            if len(self._capped) > 2 * len(self.entries) + 16:  # most of it is finished, or was delivered again
                self._capped = sorted(filter(self._stands, set(self._capped)))
        return deadline_ns

    def _stands(self, capped: tuple[int, bytes]) -> bool:
        """Tell whether that is still the deadline of that message."""
        deadline_ns, message_id = capped
        delivery = self.entries.get(message_id)
        return delivery is not None and delivery.deadline_ns == deadline_ns

    def expire(self, now_ns: int) -> list[tuple[bytes, Delivery]]:
        """Drop what is due and return it, oldest first."""
        entries = self.entries
        due = []
        for message_id, delivery in entries.items():
            if delivery.deadline_ns > now_ns:
                break
            due.append(message_id)
        expired = [(message_id, entries.pop(message_id)) for message_id in due]
        while self._capped and self._capped[0][0] <= now_ns:
            capped = heappop(self._capped)
            if self._stands(capped):
                expired.append((capped[1], entries.pop(capped[1])))
        return expired

    def next_deadline_ns(self) -> int:
        """Return when the next message is due, 0 if none is in flight."""
        entries = self.entries
        while self._capped and self._capped[0][1] not in entries:
            heappop(self._capped)
        first_ns = next(iter(entries.values())).deadline_ns if entries else 0
        return min(first_ns, self._capped[0][0]) if self._capped else first_ns

    def by_delivery(self) -> list[tuple[Delivery, list[bytes]]]:
        """Return what is in flight, grouped by what went out together and is still there (54 ns a message)."""
        entries = self.entries
        groups: dict[Delivery, list[bytes]] = {}
        for delivery, ids in groupby(entries, key=entries.__getitem__):
            if delivery in groups:  # a TOUCH in between has moved some of it to the end
                groups[delivery] += ids
            else:
                groups[delivery] = list(ids)
        return list(groups.items())

    def clear(self) -> list[tuple[bytes, Delivery]]:
        """Drop everything and return it, oldest first."""
        dropped = list(self.entries.items())
        self.entries.clear()
        self._capped.clear()
        return dropped
