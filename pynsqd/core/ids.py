"""Message ids: 16 hex digits that grow with time, unique across the topics of a node (PROTOCOL 1.7)."""

from typing import Final

_EPOCH_TICK: Final = 1288834974288
_TICK_SHIFT: Final = 20  # a tick is 2**20 ns, 1.05 ms
_PER_TICK: Final = 4096
# Bits from the left: tick, 10 of node id, 12 of sequence; so the sequence is the last three hex digits.
_NEXT_TICK: Final = 1 << 10  # in the first 13 digits
_SUFFIXES: Final = [b"%03x" % sequence for sequence in range(_PER_TICK)]


class IdGenerator:
    """Hands out ids in batches: one prefix a tick, a table of suffixes.

    A tick that is used up, or a clock that steps back, borrows from the ticks to come: ids never repeat or go back,
    and nobody sleeps.
    """

    __slots__ = ("_node_id", "_prefix", "_sequence", "_tick")

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._begin(_EPOCH_TICK)

    def _begin(self, tick: int) -> None:
        self._tick = tick
        self._sequence = 0
        self._prefix = b"%013x" % ((tick - _EPOCH_TICK) << 10 | self._node_id)

    @property
    def until_ns(self) -> int:
        """Up to when ids have been given, in ns since the epoch; ahead of a clock that was set back."""
        return self._tick << _TICK_SHIFT

    def resume(self, wall_ns: int) -> None:
        """Give no id again that was given up to ``wall_ns``, in an earlier life of the node."""
        tick = (wall_ns >> _TICK_SHIFT) + 1
        if tick > self._tick:
            self._begin(tick)

    def take(self, count: int, wall_ns: int) -> list[bytes]:
        """Return ``count`` new ids for messages published at ``wall_ns``, ns since the epoch."""
        return ids_from(self.take_first(count, wall_ns), count)

    def take_first(self, count: int, wall_ns: int) -> bytes:
        """Return the first of ``count`` new ids; the others are made of it when they are needed, see ``ids_from``."""
        tick = wall_ns >> _TICK_SHIFT
        if tick > self._tick:
            self._begin(tick)
        elif self._sequence == _PER_TICK:
            self._begin(self._tick + 1)
        first = self._prefix + _SUFFIXES[self._sequence]
        self._sequence += count
        if self._sequence > _PER_TICK:
            ticks, sequence = divmod(self._sequence - 1, _PER_TICK)
            self._begin(self._tick + ticks)
            self._sequence = sequence + 1
        return first


def ids_from(first_id: bytes, count: int) -> list[bytes]:
    """Return the ids that one ``take`` of ``count`` gave, from the first of them (85 ns an id)."""
    if count == 1:
        return [first_id]
    prefix = first_id[:13]
    sequence = int(first_id[13:], 16)
    ids = [prefix + suffix for suffix in _SUFFIXES[sequence : sequence + count]]
    while len(ids) < count:
        prefix = b"%013x" % (int(prefix, 16) + _NEXT_TICK)
        ids += [prefix + suffix for suffix in _SUFFIXES[: count - len(ids)]]
    return ids
