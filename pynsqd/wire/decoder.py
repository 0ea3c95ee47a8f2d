"""Bytes from a V2 client, cut into command lines, runs of FINs, sizes and bodies (PROTOCOL 1.1). Hot.

An offset cursor over the bytes of the last read. Nothing is set aside for a declared size: a body that has not come
yet is a list of the reads so far, joined once when the last of them is there.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from pynsqd.wire.constants import ID_LENGTH, MAX_LINE
from pynsqd.wire.errors import NsqError

_INT32: Final = Struct(">i")
_SIZE: Final = Struct(">I")  # unsigned: also where it is damaged each step leads on
_FIN: Final = b"FIN "
_FIN_LAYOUT: Final = (4, ID_LENGTH, 1)  # "FIN ", id, newline
_FIN_LINE: Final = sum(_FIN_LAYOUT)
_LONGEST_RUN: Final = 1024  # FIN lines looked at in one go
_SHORTEST_RUN: Final = 8  # after an odd one: from here it doubles, so odd lines cost little more than others


_AT_ONCE: Final = 64  # pieces that one call cuts
_MAX_CUTTERS: Final = 256
_LONG: Final = 1 << 11  # bytes of a body: from here on a view costs less than a copy
_WORTH_A_LOOK: Final = 16  # messages: whether they are of one size


class _Cutters(dict[tuple[int, int, int], Struct]):
    """(bytes to skip, bytes to take, bytes to skip) to what cuts so many such pieces in one call.

    A piece costs 20 ns, where a slice costs 90.
    """

    def __missing__(self, layout: tuple[int, int, int]) -> Struct:
        if len(self) >= _MAX_CUTTERS:
            self.clear()
        before, size, behind = layout
        cutter = self[layout] = Struct(f"{before}x{size}s{behind}x" * _AT_ONCE)
        return cutter


_cutters: Final = _Cutters()


def _cut(data: bytes, start: int, count: int, layout: tuple[int, int, int]) -> list[bytes]:
    """Return what is in the middle of each of ``count`` pieces that follow each other from ``start``, see _Cutters."""
    before, size, _ = layout
    stride = sum(layout)
    pieces: list[bytes] = []
    if count >= _AT_ONCE:
        cutter = _cutters[layout]
        for _ in range(count // _AT_ONCE):
            pieces += cutter.unpack_from(data, start)
            start += cutter.size
        count %= _AT_ONCE
    start += before
    pieces += [data[at : at + size] for at in range(start, start + count * stride, stride)]
    return pieces


def _are_equal(data: bytes, start: int, count: int, stride: int) -> bool:
    """Tell whether ``count`` messages behind their sizes, from ``start`` on, are all as long as the first.

    Their sizes are then columns with a stride, which four scans in C check: 0.01 µs a message, where to walk from one
    to the next takes 0.1. Batches of telemetry are like that.
    """
    end = start + count * stride
    return (  # where sizes differ the last byte says so soonest
        data[start + 3 : end : stride].count(data[start + 3]) == count
        and data[start + 2 : end : stride].count(data[start + 2]) == count
        and data[start + 1 : end : stride].count(data[start + 1]) == count
        and data[start:end:stride].count(data[start]) == count
    )


def cut_messages(data: bytes, start: int, count: int) -> tuple[Sequence[bytes | memoryview], int]:
    """Return the bodies of ``count`` messages behind their sizes, from ``start`` to the end of ``data``.

    And their size if they are known to have all the same, else 0. Long ones are not copied. Raises ValueError or
    struct.error if they do not end where ``data`` does.
    """
    whole: bytes | memoryview = data
    size: int = _SIZE.unpack_from(data, start)[0]
    if len(data) - start > count * _LONG:
        whole = memoryview(data)
    elif (
        count >= _WORTH_A_LOOK and len(data) - start == count * (4 + size) and _are_equal(data, start, count, 4 + size)
    ):
        return _cut(data, start, count, (4, size, 0)), size
    bodies = []
    for _ in range(count):
        begin = start + 4
        start = begin + _SIZE.unpack_from(data, start)[0]
        bodies.append(whole[begin:start])
    if start != len(data):
        raise ValueError("sizes do not add up")
    return bodies, 0


class LineTooLong(NsqError):
    """No newline in the first 16384 bytes: nsqd closes without a frame."""


class BadMessageSize(NsqError):
    """Message number ``index`` of a batch declares a ``size`` that is not in 1..max-msg-size."""

    def __init__(self, index: int, size: int) -> None:
        super().__init__(f"message {index} declares {size} bytes")
        self.index = index
        self.size = size


class BatchOverrun(NsqError):
    """The messages of a batch are longer than the batch."""


class Decoder:
    """The input side of one connection."""

    __slots__ = ("_data", "_have", "_parts", "_pos", "_run", "_wanted")

    def __init__(self) -> None:
        self._data = b""
        self._pos = 0
        self._parts: list[bytes] = []  # reads that came after _data while a long body is awaited
        self._have = 0  # bytes in _data[_pos:] and _parts
        self._run = _LONGEST_RUN  # FIN lines that are worth looking at in one go
        self._wanted = 0  # how many bytes must be there before it is worth looking again

    def feed(self, data: bytes) -> None:
        """Add what was read from the socket."""
        left = len(self._data) - self._pos
        if not left and not self._parts:
            self._data = data
            self._pos = self._wanted = 0
            return
        if not self._parts:
            self._have = left
        self._parts.append(data)
        self._have += len(data)
        if self._have >= self._wanted:
            self._data = b"".join((self._data[self._pos :], *self._parts))
            self._pos = 0
            self._parts.clear()
            self._wanted = 0

    def __len__(self) -> int:
        """Return how many bytes have come that no command has taken."""
        return self._have if self._parts else len(self._data) - self._pos

    def line(self) -> bytes | None:
        """Take a command line without its newline and one carriage return, or None if it is not there yet.

        Raises LineTooLong.
        """
        data = self._data
        start = self._pos
        end = data.find(b"\n", start, start + MAX_LINE)
        if end < 0:
            if len(data) - start >= MAX_LINE:
                raise LineTooLong
            self._release()
            return None
        self._pos = end + 1
        if end > start and data[end - 1] == 0x0D:
            end -= 1
        return data[start:end]

    def fin_run(self) -> list[bytes]:
        """Take as many well-formed ``FIN <16 bytes>`` lines as follow each other; empty if there is none.

        Lines of 21 bytes have a stride, so a thousand of them are checked by seven scans in C and cut by a few calls
        (0.1 µs each against 0.71 µs through ``line``). Whatever looks odd is left for ``line``.
        """
        data = self._data
        start = self._pos
        if not data.startswith(_FIN, start):
            return []
        count = min((len(data) - start) // _FIN_LINE, self._run)
        end = start + count * _FIN_LINE
        for column, expected in ((0, b"F"), (1, b"I"), (2, b"N"), (3, b" "), (20, b"\n")):
            found = data[start + column : end : _FIN_LINE]
            matching = len(found) - len(found.lstrip(expected))
            if matching < count:
                count = matching
                end = start + count * _FIN_LINE
        if not count:
            return []
        if data.count(b"\n", start, end) != count or data.count(b" ", start, end) != count or b"\r" in data[start:end]:
            count = self._clean_lines(start, count)
            self._run = max(count, _SHORTEST_RUN)
            end = start + count * _FIN_LINE
        elif count == self._run:
            self._run = min(2 * count, _LONGEST_RUN)
        self._pos = end
        return _cut(data, start, count, _FIN_LAYOUT)

    def ids_between(self, begin: bytes, end: bytes) -> list[bytes]:
        """Take as many lines of ``begin``, a 16-byte id and ``end``, newline included, as follow each other.

        Both have one space, and there are no others. As ``fin_run``; a run that goes on is looked at in larger pieces.
        """
        data = self._data
        if not data.startswith(begin, self._pos):
            return []
        id_at = len(begin)
        stride = id_at + ID_LENGTH + len(end)
        columns = [*enumerate(begin), *enumerate(end, id_at + ID_LENGTH)]
        ids: list[bytes] = []
        most = _SHORTEST_RUN
        while True:
            start = self._pos
            count = min((len(data) - start) // stride, most)
            for column, expected in columns:
                found = data[start + column : start + count * stride : stride]
                count -= len(found.lstrip(bytes((expected,))))
            stop = start + count * stride
            if data.count(b"\n", start, stop) != count or data.count(b" ", start, stop) != 2 * count:
                return ids  # something odd is left for ``line``
            ids += _cut(data, start, count, (id_at, ID_LENGTH, len(end)))
            self._pos = stop
            if count < most:
                return ids
            most *= 4

    def same_again(self, line: bytes, max_size: int) -> bytes | None:
        """Take a whole command that begins with ``line``, newline included, and return its body.

        None, and nothing is taken, if anything else comes next, if the command is not all there, or if its size is not
        in 1..max_size. A publisher sends the same line again and again, so a session takes a PUB in 1.2 µs, where
        cutting the line and its words costs 2.8.
        """
        data = self._data
        begin = self._pos + len(line) + 4
        if begin > len(data) or not data.startswith(line, self._pos):
            return None
        size = _INT32.unpack_from(data, begin - 4)[0]
        end = begin + size
        if end > len(data) or not 0 < size <= max_size:
            return None
        self._pos = end
        self._release()
        return data[begin:end]

    def _clean_lines(self, start: int, count: int) -> int:
        """Return how many of ``count`` lines of 21 bytes come before the first with a space or line end in its id."""
        for number in range(count):
            line = self._data[start + number * _FIN_LINE : start + number * _FIN_LINE + 20]
            if b"\r" in line or b"\n" in line or line.count(b" ") != 1:
                return number
        return count

    def int32(self) -> int | None:
        """Take a signed 32-bit number, or None if it is not there yet."""
        if len(self._data) - self._pos < 4:
            self._release()
            return None
        number: int = _INT32.unpack_from(self._data, self._pos)[0]
        self._pos += 4
        return number

    def take(self, length: int) -> bytes | None:
        """Take ``length`` bytes, or None if they are not all there yet."""
        stop = self._pos + length
        if stop > len(self._data):
            self._await(length)
            return None
        taken = self._data[self._pos : stop]
        self._pos = stop
        return taken

    def messages(self, count: int, budget: int, max_size: int) -> tuple[bytes, int]:
        """Take the messages of a batch that have come whole, up to ``count``, each behind its size, and as they are.

        ``budget`` is what is left of the batch's declared size in bytes. Returns the messages and how many they are.
        Raises BadMessageSize for a size not in 1..max_size, BatchOverrun if the messages do not fit the budget.
        """
        data = self._data
        start = pos = self._pos
        end = len(data)
        limit = start + budget
        wanted = arrived = 0
        size_at = _INT32.unpack_from
        if budget >= 8 and end - start >= 8:
            stride: int = 4 + size_at(data, start)[0]
            most = min((min(end, limit) - start) // max(1, stride), count)
            if 4 < stride <= 4 + max_size and _are_equal(data, start, most, stride):
                arrived = most
                pos += most * stride
        for index in range(arrived, count):
            body = pos + 4
            if body > limit:
                raise BatchOverrun
            if body > end:
                wanted = 4
                break
            size = size_at(data, pos)[0]
            if not 0 < size <= max_size:
                raise BadMessageSize(index, size)
            stop = body + size
            if stop > end:
                if stop > limit:
                    raise BatchOverrun
                wanted = stop - pos
                break
            pos = stop
            arrived = index + 1
        if pos > limit:
            raise BatchOverrun
        self._pos = pos
        if wanted:
            self._await(wanted)
        return data[start:pos], arrived

    def drain(self) -> bytes:
        """Take everything that has come: from here on the bytes mean something else."""
        rest = b"".join((self._data[self._pos :], *self._parts))
        self._data = b""
        self._pos = self._wanted = 0
        self._parts.clear()
        return rest

    def _await(self, length: int) -> None:
        """Look again when ``length`` bytes are there; until then hold no more of the last read than its rest."""
        self._wanted = length
        if self._pos:
            self._data = self._data[self._pos :]
            self._pos = 0

    def _release(self) -> None:
        """Let go of a read that is used up: an idle connection holds no buffer."""
        if self._pos and self._pos == len(self._data):
            self._data = b""
            self._pos = 0
