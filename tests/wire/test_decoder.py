"""Bytes into lines, runs of FINs, sizes, bodies and batches (PROTOCOL 1.1)."""

import itertools
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from time import thread_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pynsqd.wire.constants import MAX_LINE
from pynsqd.wire.decoder import BadMessageSize, BatchOverrun, Decoder, LineTooLong, cut_messages

ID = b"0123456789abcdef"
MAX_SIZE = 1000

# -- what a stream is made of: bytes, what they give, and how a decoder is asked for it ------------------------------

Item = tuple[bytes, object, Callable[[Decoder], object]]


def _line(line: bytes, end: bytes = b"\n") -> Item:
    return line + end, line, Decoder.line


def _number(number: int) -> Item:
    return struct.pack(">i", number), number, Decoder.int32


def _body(body: bytes) -> Item:
    return body, body, lambda decoder: decoder.take(len(body))


def _batch(bodies: list[bytes]) -> Item:
    wire = b"".join(struct.pack(">i", len(body)) + body for body in bodies)
    gathered: list[bytes] = []

    def ask(decoder: Decoder) -> object:
        budget = len(wire) - sum(4 + len(body) for body in gathered)
        gathered.extend(_cut(*decoder.messages(len(bodies) - len(gathered), budget, MAX_SIZE)))
        return gathered if len(gathered) == len(bodies) else None

    return wire, bodies, ask


def _cut(messages: bytes, count: int) -> list[bytes]:
    return cut_messages(messages, 0, count)[0] if count else []


LINES = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"").rstrip(b"\r"))
ITEMS = st.one_of(
    st.builds(_line, LINES, st.sampled_from([b"\n", b"\r\n"])),
    st.builds(_number, st.integers(min_value=-(2**31), max_value=2**31 - 1)),
    st.builds(_body, st.binary(min_size=1, max_size=200)),
    st.builds(_batch, st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6)),
    # messages of one size, but perhaps for some
    st.builds(_batch, st.lists(st.sampled_from([b"a", b"b", b"c", b"\0" * 5, b"dd"]), min_size=1, max_size=12)),
    st.builds(_batch, st.lists(st.sampled_from([b"x" * 300, b"y" * 300, b"z" * 44]), min_size=1, max_size=5)),
)


def _pieces(stream: bytes, cuts: list[int]) -> Iterator[bytes]:
    bounds = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    return (stream[start:stop] for start, stop in itertools.pairwise(bounds) if start < stop)


@given(st.lists(ITEMS, min_size=1, max_size=12), st.lists(st.integers(min_value=0, max_value=4000), max_size=12))
@example([_body(b"x" * 100), _line(b"NOP")], [1, 101, 103])
@example([_number(100), _body(b"x" * 100), _line(b"NOP")], [4, 106])
@example([_batch([b"x" * 50]), _line(b"A")], [54])
def test_each_item_is_there_as_soon_as_its_last_byte_is(items: list[Item], cuts: list[int]) -> None:
    stream = b"".join(wire for wire, _, _ in items)
    decoder = Decoder()
    taken = fed = 0
    ends = [len(b"".join(wire for wire, _, _ in items[: number + 1])) for number in range(len(items))]
    for piece in _pieces(stream, cuts):
        decoder.feed(piece)
        fed += len(piece)
        while taken < len(items):
            _, expected, ask = items[taken]
            found = ask(decoder)
            if found is None:
                break
            assert found == expected
            taken += 1
        assert taken == sum(end <= fed for end in ends)
        if taken == len(items):
            assert len(decoder) == 0
    assert taken == len(items)


def test_what_is_left_is_counted() -> None:
    decoder = Decoder()
    assert len(decoder) == 0
    decoder.feed(b"NOP\nPUB t\n\0\0\0\x09abc")
    assert decoder.line() == b"NOP"
    assert len(decoder) == 13
    assert (decoder.line(), decoder.int32(), decoder.take(9)) == (b"PUB t", 9, None)
    assert len(decoder) == 3
    decoder.feed(b"d")
    assert (len(decoder), decoder.take(9)) == (4, None)
    decoder.feed(b"efghij")
    assert len(decoder) == 10
    assert decoder.take(9) == b"abcdefghi"
    assert len(decoder) == 1


# -- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "line"),
    [(b"\n", b""), (b"\r\n", b""), (b"\r\r\n", b"\r"), (b"A\r\r\n", b"A\r"), (b"\rA\n", b"\rA"), (b" A \n", b" A ")],
)
def test_the_newline_and_one_carriage_return_go(raw: bytes, line: bytes) -> None:
    decoder = Decoder()
    decoder.feed(raw)
    assert decoder.line() == line
    assert decoder.line() is None


def test_a_carriage_return_of_another_line_is_not_this_lines() -> None:
    decoder = Decoder()
    decoder.feed(b"\nNOP\r")
    assert decoder.line() == b""
    assert len(decoder) == 4


def test_a_carriage_return_of_the_line_before_is_not_this_lines() -> None:
    decoder = Decoder()
    decoder.feed(b"\r\n")
    assert decoder.int32() is None
    decoder.feed(b"\r\n\n")
    assert decoder.int32() == 0x0D0A0D0A
    assert decoder.line() == b""


@pytest.mark.parametrize("before", [b"", b"NOP\n"])
@pytest.mark.parametrize("piece", [1, 1000, MAX_LINE + 10])
def test_the_longest_line_has_16384_bytes_with_its_newline(before: bytes, piece: int) -> None:
    longest = b"A" * (MAX_LINE - 1) + b"\n"
    for line, fits in ((longest, True), (b"A" + longest, False)):
        stream = before + line
        decoder = Decoder()
        lines = []
        refused_at = 0
        for at in range(0, len(stream), piece):
            decoder.feed(stream[at : at + piece])
            try:
                while (found := decoder.line()) is not None:
                    lines.append(found)
            except LineTooLong:
                refused_at = at + piece
                break
        if fits:
            assert lines == ([b"NOP"] if before else []) + [longest[:-1]]
        else:
            # 16384 bytes without a newline are enough to know.
            assert len(before) + MAX_LINE <= refused_at < len(before) + MAX_LINE + piece


# -- runs of FINs ----------------------------------------------------------------------------------------------------


def _ids_by_line(stream: bytes) -> tuple[list[bytes], int]:
    """What the general path makes of it: the lines, and how many bytes no line took."""
    decoder = Decoder()
    decoder.feed(stream)
    lines = []
    while (line := decoder.line()) is not None:
        lines.append(line)
    return lines, len(decoder)


def _ids_by_run(stream: bytes, pieces: list[bytes]) -> tuple[list[bytes], int, int]:
    decoder = Decoder()
    lines = []
    in_runs = 0
    for piece in pieces:
        decoder.feed(piece)
        while True:
            ids = decoder.fin_run()
            if ids:
                assert all(len(one) == 16 for one in ids)
                in_runs += len(ids)
                lines += [b"FIN " + one for one in ids]
                continue
            line = decoder.line()
            if line is None:
                break
            lines.append(line)
    return lines, len(decoder), in_runs


ODD_IDS = st.one_of(
    st.just(ID),
    st.binary(min_size=16, max_size=16),
    st.text("FIN \n\r\t\0ab", min_size=14, max_size=18).map(str.encode),
    st.sampled_from([ID[:15] + b"\r", ID[:15], ID + b"0", b" " + ID, ID + b" ", ID[:7] + b" " + ID[8:], b""]),
)
FIN_LINES = st.one_of(
    ODD_IDS.map(lambda one: b"FIN " + one + b"\n"),
    ODD_IDS.map(lambda one: b"FIN " + one + b"\r\n"),
    st.sampled_from(
        [b"NOP\n", b"FIN\n", b"fin " + ID + b"\n", b"FIN\t" + ID + b"\n", b"FINFIN\n", b"\n", b"TOUCH x\n"]
    ),
)


@given(st.lists(FIN_LINES, max_size=30), st.lists(st.integers(min_value=0, max_value=600), max_size=6))
def test_runs_and_lines_say_the_same(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(lines)
    by_line, rest = _ids_by_line(stream)
    by_run, rest_of_runs, _ = _ids_by_run(stream, list(_pieces(stream, cuts)))
    assert by_run == by_line
    assert rest_of_runs == rest


@pytest.mark.parametrize("count", [1, 2, 100, 1023, 1024, 1025, 5000])
def test_a_clean_run_takes_no_line(count: int) -> None:
    ids = [b"%016x" % number for number in range(count)]
    stream = b"".join(b"FIN " + one + b"\n" for one in ids)
    lines, rest, in_runs = _ids_by_run(stream, [stream])
    assert lines == [b"FIN " + one for one in ids]
    assert (rest, in_runs) == (0, count)


def test_a_run_ends_where_another_command_begins() -> None:
    decoder = Decoder()
    decoder.feed((b"FIN " + ID + b"\n") * 3 + b"RDY 5\n" + b"FIN " + ID + b"\nFIN 01234")
    assert decoder.fin_run() == [ID] * 3
    assert decoder.fin_run() == []
    assert decoder.line() == b"RDY 5"
    assert decoder.fin_run() == [ID]
    assert decoder.fin_run() == []
    assert decoder.line() is None
    decoder.feed(b"56789abcdef\n")
    assert decoder.fin_run() == [ID]
    assert len(decoder) == 0


# -- ids between the same words --------------------------------------------------------------------------------------

REQ_LINES = st.one_of(
    ODD_IDS.map(lambda one: b"REQ " + one + b" 0\n"),
    st.sampled_from(
        [b"REQ %b 0\n" % ID] * 6 + [b"REQ %b 0\r\n" % ID, b"REQ %b 1\n" % ID, b"REQ %b  0\n" % ID, b"FIN " + ID + b"\n"]
    ),
)


@given(st.lists(REQ_LINES, max_size=40), st.lists(st.integers(min_value=0, max_value=800), max_size=6))
def test_ids_between_and_lines_say_the_same(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(lines)
    by_line, rest = _ids_by_line(stream)
    decoder = Decoder()
    by_run: list[bytes] = []
    for piece in _pieces(stream, cuts):
        decoder.feed(piece)
        while True:
            by_run += [b"REQ %b 0" % one for one in decoder.ids_between(b"REQ ", b" 0\n")]
            line = decoder.line()
            if line is None:
                break
            by_run.append(line)
    assert by_run == by_line
    assert len(decoder) == rest


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40, 41, 5000])
def test_ids_between_takes_all_that_follow_each_other(count: int) -> None:
    ids = [b"%016x" % number for number in range(count)]
    decoder = Decoder()
    decoder.feed(b"".join(b"REQ %b 1500\n" % one for one in ids) + b"REQ %b 15000\n" % ID)
    assert decoder.ids_between(b"REQ ", b" 1500\n") == ids
    assert decoder.ids_between(b"REQ ", b" 1500\n") == []
    assert decoder.line() == b"REQ %b 15000" % ID


# -- a command whose line comes again --------------------------------------------------------------------------------

PUBS = st.builds(
    lambda line, size, body, end: line + struct.pack(">i", len(body) if size is None else size) + body + end,
    st.sampled_from([b"PUB t\n", b"PUB t\r\n", b"PUB u\n", b"PUB tt\n", b"NOP\n"]),
    st.one_of(st.none(), st.sampled_from([-(2**31), -1, 0, 1, MAX_SIZE, MAX_SIZE + 1, 2**31 - 1])),
    st.binary(max_size=20),
    st.sampled_from([b"", b"P", b"PUB t\n"]),
)


def _message_by_general_path(data: bytes) -> bytes | None:
    decoder = Decoder()
    decoder.feed(data)
    if not data.startswith(b"PUB t\n"):
        return None
    decoder.line()
    size = decoder.int32()
    return decoder.take(size) if size is not None and 0 < size <= MAX_SIZE else None


@given(PUBS)
@example(b"PUB t\n" + struct.pack(">i", MAX_SIZE) + b"x" * MAX_SIZE)
@example(b"PUB t\n" + struct.pack(">i", MAX_SIZE + 1) + b"x" * (MAX_SIZE + 1))
def test_the_same_again_is_what_the_general_path_takes(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data)
    body = decoder.same_again(b"PUB t\n", MAX_SIZE)
    assert body == _message_by_general_path(data)
    taken = 0 if body is None else 10 + len(body)
    assert len(decoder) == len(data) - taken
    rest = decoder.take(len(data) - taken)
    assert rest == data[taken:]


@pytest.mark.parametrize("odd", [b"FIN 0123456\r89abcdef\n", b"FIN 01234567 9abcdef\n", b"FIN 0123456\nFIN 01234\n"])
def test_odd_lines_do_not_make_the_runs_costly(odd: bytes) -> None:
    """The clean lines before an odd one are still a run; else each of them pays for scanning a thousand."""
    clean = b"FIN " + ID + b"\n"
    _, _, in_runs = _ids_by_run(b"", [clean * 500 + odd + clean * 500])
    assert in_runs >= 900


def test_nothing_but_odd_lines_costs_little_more_than_other_lines() -> None:
    """Scans of a thousand lines for each of them would cost fifty times as much."""

    def cost_s(line: bytes) -> float:
        stream = line * 12_000  # what one read brings
        spent = []
        for _ in range(3):
            began = thread_time()
            _, _, in_runs = _ids_by_run(b"", [stream])
            spent.append(thread_time() - began)
            assert in_runs == 0
        return min(spent)

    assert cost_s(b"FIN 0123456\r89abcdef\n") < 20 * cost_s(b"XIN 0123456\r89abcdef\n")


def test_runs_get_long_again_after_odd_lines() -> None:
    clean = b"FIN " + ID + b"\n"
    decoder = Decoder()
    decoder.feed(b"FIN 0123456\r89abcdef\n" * 10)
    while decoder.line():
        assert decoder.fin_run() == []
    decoder.feed(clean * 5000)
    runs = []
    while run := decoder.fin_run():
        runs.append(len(run))
    assert sum(runs) == 5000
    assert len(runs) < 15


# -- batches ---------------------------------------------------------------------------------------------------------


def _messages(wire: bytes, count: int, budget: int, max_size: int = MAX_SIZE) -> tuple[list[bytes], int]:
    decoder = Decoder()
    decoder.feed(wire)
    messages, arrived = decoder.messages(count, budget, max_size)
    assert len(decoder) == len(wire) - len(messages)
    return _cut(messages, arrived), budget - len(messages)


@pytest.mark.parametrize("size", [0, -1, -(2**31), MAX_SIZE + 1, 2**31 - 1])
def test_a_bad_size_is_told_with_its_number(size: int) -> None:
    wire = b"\0\0\0\x01a" + struct.pack(">i", size) + b"rest"
    with pytest.raises(BadMessageSize) as caught:
        _messages(wire, 3, 5000)
    assert (caught.value.index, caught.value.size) == (1, size)


@pytest.mark.parametrize("high", [0x01, 0x80])
def test_among_messages_of_one_size_too(high: int) -> None:
    one = b"\0\0\0\x01a"
    with pytest.raises(BadMessageSize) as caught:
        _messages(one * 3 + bytes([high]) + one[1:] + one, 5, 5000)
    assert caught.value.index == 3
    with pytest.raises(BadMessageSize) as caught:
        _messages((struct.pack(">i", MAX_SIZE + 1) + bytes(MAX_SIZE + 1)) * 2, 2, 5000)
    assert caught.value.index == 0


@pytest.mark.parametrize("count", [2, 63, 64, 65, 128, 200, 1000])
@pytest.mark.parametrize("size", [1, 7, 300])
def test_many_messages_of_one_size(count: int, size: int) -> None:
    bodies = [b"%0*d" % (size, number % 10**size) for number in range(count)]
    wire = b"".join(struct.pack(">i", size) + body for body in bodies)
    assert _messages(wire + b"rest", count, len(wire)) == (bodies, 0)


def test_messages_of_one_size_are_no_more_than_there_are_in_the_batch() -> None:
    assert _messages(b"\0\0\0\x01a" * 4, 2, 20) == ([b"a"] * 2, 10)


def test_the_largest_size_is_allowed() -> None:
    assert _messages(struct.pack(">i", MAX_SIZE) + bytes(MAX_SIZE), 1, 4 + MAX_SIZE) == ([bytes(MAX_SIZE)], 0)


@pytest.mark.parametrize("budget", [-3, 0, 3, 4, 5, 8, 9])
def test_a_batch_longer_than_its_size_is_refused(budget: int) -> None:
    with pytest.raises(BatchOverrun):
        _messages(b"\0\0\0\x01a\0\0\0\x01b", 2, budget)


def test_an_overrun_is_known_before_the_bytes_are_there() -> None:
    with pytest.raises(BatchOverrun):
        _messages(b"\0\0\0\x09a", 1, 12)
    with pytest.raises(BatchOverrun):
        _messages(b"\0\0\0\x01a", 2, 8)


def test_what_is_left_of_a_batch_is_returned() -> None:
    assert _messages(b"\0\0\0\x01a\0\0\0\x01bXYZ", 2, 13) == ([b"a", b"b"], 3)
    assert _messages(b"\0\0\0\x01a\0\0", 2, 10) == ([b"a"], 5)


@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=70)
    | st.lists(st.binary(min_size=5, max_size=5), min_size=1, max_size=200),
    st.binary(max_size=30),
)
@example([b"a" * 5] * 64 + [b"a" * 6], b"")
@example([b"a" * 5, b"a" * 6, b"a" * 4], b"head")  # as long as three of the first, and of other sizes
def test_messages_are_cut_into_their_bodies(bodies: list[bytes], before: bytes) -> None:
    wire = before + b"".join(struct.pack(">i", len(body)) + body for body in bodies)
    size = len(bodies[0]) if len(bodies) >= 16 and len(set(map(len, bodies))) == 1 else 0
    assert cut_messages(wire, len(before), len(bodies)) == (bodies, size)


# -- memory and copies -----------------------------------------------------------------------------------------------


def _allocated(act: Callable[[], object]) -> int:
    """Peak of the bytes that ``act`` allocates on top of what there was."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        act()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_a_declared_size_allocates_nothing() -> None:
    decoder = Decoder()
    decoder.feed(b"x")
    assert _allocated(lambda: decoder.take(5 << 20)) < 1000


@pytest.mark.parametrize(("size", "step"), [(1 << 20, 256), (1 << 17, 1)])
@pytest.mark.parametrize("as_batch", [False, True])
def test_a_long_body_in_small_reads_is_copied_once(as_batch: bool, size: int, step: int) -> None:
    """Counts the bytes that are moved; quadratic would be gigabytes here."""
    decoder = Decoder()
    decoder.feed(struct.pack(">i", size)[: 4 if as_batch else 0])
    bodies: list[bytes] = []
    piece = bytes(step)
    moved = 0
    for _ in range(size // step):
        before = decoder._data
        decoder.feed(piece)
        if decoder._data is not before:
            moved += len(decoder._data)
        if as_batch:
            bodies += _cut(*decoder.messages(1, 4 + size, size))
        elif (body := decoder.take(size)) is not None:
            bodies.append(body)
    assert bodies == [bytes(size)]
    assert moved <= size + 2 * step + 100


def test_an_idle_decoder_holds_no_buffer() -> None:
    rng = random.Random(1)
    for asked in (Decoder.line, Decoder.int32, lambda decoder: decoder.take(10)):
        decoder = Decoder()
        read = rng.randbytes(1 << 18)[:-4] + b"\n\0\0\n"
        decoder.feed(read)
        assert decoder.take(len(read)) == read
        assert asked(decoder) is None
        assert decoder._data == b""


@pytest.mark.parametrize("reads", [[b"NOP\nrest"], [b"NOP\n" + b"r" * 3, b"est"[:1], b"est"[1:]], [b"NOP\n"]])
def test_drain_takes_what_has_come_and_nothing_stays(reads: list[bytes]) -> None:
    decoder = Decoder()
    decoder.feed(reads[0])
    assert decoder.line() == b"NOP"
    assert decoder.take(100) is None
    for read in reads[1:]:
        decoder.feed(read)
    assert decoder.drain() == b"".join(reads)[4:]
    assert (len(decoder), decoder.drain(), decoder.line()) == (0, b"", None)
    decoder.feed(b"RDY 1\n")
    assert decoder.line() == b"RDY 1"
