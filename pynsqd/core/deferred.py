"""Messages that are not to be delivered before a due time: DPUB, /pub?defer= and REQ with a delay."""

from heapq import heappop, heappush


class Deferred:
    """Frames by due time, nearest first; equal times keep the order in which they came."""

    __slots__ = ("_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, bytes]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due_ns: int, frame: bytes) -> None:
        """Hold ``frame`` until ``due_ns``."""
        self._serial += 1
        heappush(self._heap, (due_ns, self._serial, frame))

    def take_due(self, now_ns: int) -> list[bytes]:
        """Return the frames that are due and let go of them."""
        heap = self._heap
        due = []
        while heap and heap[0][0] <= now_ns:
            due.append(heappop(heap)[2])
        return due

    @property
    def next_due_ns(self) -> int:
        """When the next frame is due, in ns; 0 if there is none."""
        return self._heap[0][0] if self._heap else 0

    def items(self) -> list[tuple[int, bytes]]:
        """Return (due_ns, frame) of all, in no order."""
        return [(due_ns, frame) for due_ns, _, frame in self._heap]

    def clear(self) -> None:
        """Drop everything."""
        self._heap.clear()
