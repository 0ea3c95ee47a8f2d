"""Message ids: 16 hex digits that grow with time, unique across the topics of a node (PROTOCOL 1.7)."""

from typing import Final

_EPOCH_TICK: Final = 1288834974288
_TICK_SHIFT: Final = 20  # a tick is 2**20 ns, 1.05 ms
_PER_TICK: Final = 4096
# Bits from the left: tick, 10 of node id, 12 of sequence; so the sequence is the last three hex digits.
_SUFFIXES: Final = [b"%03x" % sequence for sequence in range(_PER_TICK)]


class IdGenerator:
    """Hands out ids in batches: one prefix a tick, a table of suffixes (35 ns an id).

    A tick that is used up, or a clock that steps back, borrows from the ticks to come: ids never repeat or go back,
    and nobody sleeps.
    """

    __slots__ = ("_node_id", "_sequence", "_tick")

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._tick = _EPOCH_TICK
        self._sequence = 0

    def take(self, count: int, wall_ns: int) -> list[bytes]:
        """Return ``count`` new ids for messages published at ``wall_ns``, ns since the epoch."""
        tick = wall_ns >> _TICK_SHIFT
        if tick > self._tick:
            self._tick = tick
            self._sequence = 0
        ids: list[bytes] = []
        while count:
            room = _PER_TICK - self._sequence
            if not room:
                self._tick += 1
                self._sequence = 0
                continue
            part = min(count, room)
            prefix = b"%013x" % ((self._tick - _EPOCH_TICK) << 10 | self._node_id)
            ids += [prefix + suffix for suffix in _SUFFIXES[self._sequence : self._sequence + part]]
            self._sequence += part
            count -= part
        return ids
