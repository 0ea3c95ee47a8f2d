"""The log of a topic: promises P1, P5, P6 and P7 at the level of files."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pynsqd.core.batch import Batch
from pynsqd.storage import topic_log
from pynsqd.storage.format import VERSION, pack_segment_header, plain_messages
from pynsqd.storage.log_store import LogStore
from pynsqd.storage.topic_log import TopicLog
from pynsqd.wire.encoder import split_frames
from pynsqd.wire.errors import StartupError, StorageError
from tests.support.batches import Batches, broken, joined, record_size
from tests.support.failing_files import FailingFiles

TOPIC = "orders"
HEADER = 32  # bytes, of a segment and of a record
FRAME = 34  # bytes of a message frame before the body
MIB = 1 << 20


class Bench:
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


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Bench]:
    """Segments of at most 1000 bytes."""
    bench = Bench(tmp_path, 1000)
    yield bench
    bench.close()


# -- append and read ---------------------------------------------------------------------------------------------


def test_a_new_log_is_empty_and_touches_nothing(bench: Bench, tmp_path: Path) -> None:
    log = bench.log
    assert (log.start, log.end, log.end_sequence, log.live_segments()) == (0, 0, 0, [])
    assert log.read(0, 0, MIB) == ([], 0, 0)
    assert log.fetch(0, [b"x" * 16]) == {}
    assert list(log.owed_since(0)) == []
    log.release(0)
    log.sync()
    assert os.listdir(tmp_path) == []


def test_what_is_appended_is_read(bench: Bench) -> None:
    first, second = bench.batches.new(3, 6000), bench.batches.new(2, 9000)
    assert bench.append(first, second) == [HEADER, HEADER + record_size(first)]
    batches, position, sequence = bench.log.read(0, bench.log.end, MIB)
    assert (position, sequence) == (bench.log.end, bench.log.end_sequence) == (second.position + HEADER + 18032, 5)
    assert [(one.position, one.ids, one.frames) for one in batches] == [
        (one.position, one.ids, one.frames) for one in (first, second)
    ]
    assert bench.log.start == HEADER


def test_small_records_are_joined(bench: Bench) -> None:
    many = [bench.batches.new(count) for count in (1, 1, 4, 1, 2)]
    bench.append(*many)
    (batch,), _, sequence = bench.log.read(0, bench.log.end, MIB)
    assert (batch.ids, batch.frames) == joined(many)
    assert (batch.position, sequence) == (many[0].position, 9)


def test_large_records_are_not_joined(bench: Bench) -> None:
    """That would copy them, and a batch of that size is as good as a larger one."""
    many = [bench.batches.new(1, size) for size in (20, 20, 20_000, 20, 20_000, 20_000, 20)]
    positions = bench.append(*many)
    batches, _, _ = bench.log.read(0, bench.log.end, MIB)
    assert [len(batch) for batch in batches] == [2, 1, 1, 1, 1, 1]
    assert [batch.position for batch in batches] == [positions[0], *positions[2:]]
    assert joined(batches) == joined(many)


def test_a_joined_batch_spans_what_fetch_looks_at(bench: Bench) -> None:
    many = [bench.batches.new(1, 500) for _ in range(1500)]
    bench.append(*many)
    batches, _, _ = bench.log.read(0, bench.log.end, 4 * MIB)
    assert joined(batches) == joined(many)
    assert len(bench.segments()) == 1
    ends = [batch.position for batch in batches[1:]] + [bench.log.end]
    assert max(end - batch.position for end, batch in zip(ends, batches, strict=True)) <= 1 << 16
    assert min(end - batch.position for end, batch in zip(ends[:-1], batches[:-1], strict=True)) > 1 << 15
    for batch in batches:
        assert list(bench.log.fetch(batch.position, batch.ids).values()) == split_frames(batch.frames)


def test_ids_that_do_not_follow_each_other(bench: Bench) -> None:
    batch, later = bench.batches.new(4), bench.batches.new(2)
    frames = split_frames(batch.frames)[::-1]
    bench.log.append_frames(b"".join(frames), 4)
    bench.append(later)
    for _ in range(2):
        (read,), _, sequence = bench.log.read(0, bench.log.end, MIB)
        assert (read.ids, read.frames) == (batch.ids[::-1] + later.ids, b"".join(frames) + later.frames)
        assert sequence == bench.log.end_sequence == 6
        assert bench.log.fetch(HEADER, batch.ids) == dict(zip(batch.ids[::-1], frames, strict=True))
        bench.reopen()


def test_a_read_gives_about_as_much_as_asked_but_at_least_one_record(bench: Bench) -> None:
    many = [bench.batches.new(1, 5000) for _ in range(40)]
    positions = bench.append(*many)
    for max_bytes in (0, 1, 5060, 20_000, 50_000):
        batches, position, sequence = bench.log.read(0, bench.log.end, max_bytes)
        count = sum(map(len, batches))
        assert count == max(1, max_bytes // record_size(many[0]))
        assert (position, sequence) == (positions[count - 1] + record_size(many[0]), count)
    big = bench.batches.new(1, 500_000)
    bench.append(big)
    assert bench.log.read(big.position, bench.log.end, 1)[0][0].frames == big.frames


def test_a_read_stops_where_it_is_told(bench: Bench) -> None:
    many = [bench.batches.new(2, 5000) for _ in range(4)]
    positions = bench.append(*many)
    batches, position, sequence = bench.log.read(positions[1], positions[3], MIB)
    assert joined(batches) == joined(many[1:3])
    assert (position, sequence) == (positions[3], 6)
    assert bench.log.read(positions[2], positions[2], MIB) == ([], positions[2], 4)
    assert bench.log.read(bench.log.end, bench.log.end, MIB) == ([], bench.log.end, 8)
    assert bench.log.read(0, 0, MIB) == ([], bench.log.start, 0)
    assert bench.log.read(bench.log.end, 1 << 40, MIB) == ([], bench.log.end, 8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 300), st.booleans()), max_size=40),
    st.integers(200, 3000),
    st.integers(0, 5000),
)
def test_any_batches_any_rolls_any_position(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int, bool]], max_bytes: int, chunk: int
) -> None:
    bench = Bench(tmp_path_factory.mktemp("any"), max_bytes)
    many = []
    for count, size, owed in sizes:
        batch = bench.batches.new(count, size)
        if owed:
            bench.log.append_owed("c", batch.frames, count)
        else:
            bench.append(batch)
            many.append(batch)
    before = (bench.log.start, bench.log.end, bench.log.end_sequence, bench.log.live_segments())
    assert all(size <= max(max_bytes, 32 + 34 + 9 * 334) for _, size in bench.log.live_segments())
    for _ in range(2):
        position = sequence = 0
        for number, batch in enumerate(many):
            assert joined(bench.read_all(batch.position, chunk)) == joined(many[number:])
            assert bench.log.read(batch.position, batch.position, chunk) == ([], batch.position, sequence)
            sequence += len(batch)
        while position < bench.log.end:
            some, position, at = bench.log.read(position, bench.log.end, chunk)
            assert some or position == bench.log.end
        assert bench.log.end_sequence == sequence == (at if sizes else 0)
        bench.reopen()
        assert (bench.log.start, bench.log.end, bench.log.end_sequence, bench.log.live_segments()) == before
    assert bench.reports == []
    bench.log.close()


# -- owed, fetch -------------------------------------------------------------------------------------------------


def test_what_one_channel_owes_is_read_by_nobody_else(bench: Bench) -> None:
    plain, owed = bench.batches.new(2), bench.batches.new(3)
    bench.append(plain)
    position = bench.log.append_owed("worker", owed.frames, 3)
    assert position == plain.position + record_size(plain)
    assert bench.log.end_sequence == 2
    batches, next_position, sequence = bench.log.read(0, bench.log.end, MIB)
    assert joined(batches) == joined([plain])
    assert (next_position, sequence) == (bench.log.end, 2)
    assert bench.log.read(position, bench.log.end, 0) == ([], bench.log.end, 2)
    assert bench.log.fetch(position, owed.ids[1:]) == dict(
        list(zip(owed.ids, split_frames(owed.frames), strict=True))[1:]
    )


def test_a_read_goes_on_behind_what_is_owed(bench: Bench) -> None:
    owed, plain = bench.batches.new(1, 3000), bench.batches.new(2)
    for _ in range(100):
        bench.log.append_owed("worker", owed.frames, 1)
    bench.append(plain)
    assert joined(bench.log.read(0, bench.log.end, 1)[0]) == joined([plain])


def test_owed_since(bench: Bench) -> None:
    owed = [bench.batches.new(2), bench.batches.new(1)]
    first = bench.log.append_owed("worker", owed[0].frames, 2)
    bench.append(bench.batches.new(2))
    second = bench.log.append_owed("other", owed[1].frames, 1)
    got = [(channel, one.position, one.ids, one.frames, one.fresh) for channel, one in bench.log.owed_since(0)]
    assert got == [
        ("worker", first, owed[0].ids, owed[0].frames, False),
        ("other", second, owed[1].ids, owed[1].frames, False),
    ]
    assert [channel for channel, _ in bench.log.owed_since(first + 1)] == ["other"]
    assert list(bench.log.owed_since(bench.log.end)) == []


def test_fetch_finds_what_is_near(small: Bench) -> None:
    many = [small.batches.new(3, 50) for _ in range(30)]
    positions = small.append(*many)
    frames = {one: frame for batch in many for one, frame in zip(batch.ids, split_frames(batch.frames), strict=True)}
    assert len(small.segments()) > 5
    wanted = [many[3].ids[2], many[20].ids[0]]
    assert small.log.fetch(positions[3], wanted) == {one: frames[one] for one in wanted}
    assert small.log.fetch(positions[4], wanted) == {wanted[1]: frames[wanted[1]]}
    assert small.log.fetch(positions[3], [b"f" * 16]) == {}


def test_fetch_makes_frames_of_no_more_than_it_must(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [bench.batches.new(2) for _ in range(10)]
    bench.append(*many)
    made = []

    def noted(*record: Any) -> tuple[list[bytes], bytes]:
        made.append(record)
        return plain_messages(*record)

    monkeypatch.setattr(topic_log, "plain_messages", noted)
    assert list(bench.log.fetch(many[3].position, many[4].ids)) == many[4].ids
    assert len(made) == 2


def test_fetch_reads_no_further_than_it_must(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [bench.batches.new(1, 50_000) for _ in range(10)]
    bench.append(*many)
    failing = FailingFiles(monkeypatch)
    assert len(bench.log.fetch(many[0].position, many[0].ids)) == 1
    assert failing.calls["pread"] == 1


def test_fetch_gives_up_after_a_mebibyte(bench: Bench) -> None:
    near, between, far = bench.batches.new(), bench.batches.new(1, MIB), bench.batches.new()
    bench.append(near, between, far)
    assert bench.log.fetch(near.position, [far.ids[0]]) == {}
    assert bench.log.fetch(between.position, [far.ids[0]]) == {}
    assert len(bench.log.fetch(near.position, between.ids)) == 1
    assert len(bench.log.fetch(between.position + 100, far.ids)) == 1


# -- restarts ----------------------------------------------------------------------------------------------------


def test_positions_and_sequences_go_on_over_restarts(small: Bench) -> None:
    many = []
    for _ in range(12):
        many.append(small.batches.new(3, 40))
        small.append(many[-1])
        assert small.log.end_sequence == 3 * len(many)
        end = small.log.end
        small.reopen(end, small.log.end_sequence)
        assert (small.log.end, small.log.end_sequence) == (end, 3 * len(many))
    assert joined(small.read_all()) == joined(many)
    assert [batch.position for batch in many] == sorted(batch.position for batch in many)
    assert small.reports == []


def test_a_torn_append_is_cut_at_every_byte(bench: Bench) -> None:
    first, torn = bench.batches.new(2), bench.batches.new(3)
    bench.append(first)
    kept = bench.log.end
    bench.append(torn)
    path = bench.segments()[0]
    whole = path.read_bytes()
    for size in range(kept, len(whole)):
        path.write_bytes(whole[:size])
        log = bench.reopen(kept, 2)
        assert (log.end, log.end_sequence, path.stat().st_size) == (kept, 2, kept)
        later = bench.batches.new(1)
        log.append(later)
        assert later.position == torn.position
        assert joined(bench.read_all()) == joined([first, later])
    assert (bench.log.damaged_records, bench.reports, bench.bad()) == (0, [], {})


def test_no_bit_that_flips_costs_more_than_its_record(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    many = [bench.batches.new(1, 5), bench.batches.new(2, 3), bench.batches.new(1, 0)]
    bench.append(*many)
    owed = bench.log.append_owed("c", many[0].frames, 1)
    bench.append(bench.batches.new(1, 4))
    many.append(Batch([], b"", owed))
    many += bench.log.read(owed, bench.log.end, MIB)[0]
    ends = [batch.position for batch in many[1:]] + [bench.log.end]
    path = bench.segments()[0]
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        bench.reports.clear()
        log = bench.reopen(bench.log.end, 5)
        left = [batch for batch, end in zip(many, ends, strict=True) if not batch.position <= bit // 8 < end]
        hurt = [(batch.position, end) for batch, end in zip(many, ends, strict=True) if batch not in left]
        begin, end = hurt[0] if hurt else (0, HEADER)
        for _ in range(2):
            batches = bench.read_all()
            assert joined(batches) == joined(left)
        assert (log.damaged_records, log.damaged_bytes, len(bench.reports)) == (1, end - begin, 1)
        assert bench.bad() == {f"{begin:020d}.bad": bytes(data[begin:end])}
        assert path.read_bytes() == data
        assert (log.end, log.end_sequence) == (len(whole), 5)
        next((bench.folder / "bad").iterdir()).unlink()
    bench.log.close()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_in_the_files_the_log_opens_and_reads(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes are changed and appended anywhere and cut off the end: records that are whole are read, and no others."""
    bench = Bench(tmp_path_factory.mktemp("any"), 600)
    many = [bench.batches.new(count, 30) for count in (1, 4, 2, 1, 6, 1, 3, 2)]
    bench.append(*many)
    frames = {one.position: one for one in many}
    for path in bench.segments():
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(content)))
            piece = data.draw(st.binary(max_size=80))
            content[at : at + len(piece)] = piece
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(content))) :]
        path.write_bytes(content)
    end = bench.log.end
    log = bench.reopen(end, bench.log.end_sequence)
    assert log.end >= end
    assert log.end_sequence == 20
    got = joined(bench.read_all())[0]
    expected = joined(many)[0]
    assert [one for one in expected if one in got] == got
    later = bench.batches.new()
    log.append(later)
    assert later.position >= end
    assert joined(bench.read_all())[0] == [*got, *later.ids]
    whole = [one.position for one in log.read(0, end, MIB)[0]]
    assert set(whole) <= {*frames, later.position}
    log.close()


def test_damage_is_passed_over_in_the_read_that_meets_it(bench: Bench) -> None:
    owed, damaged = bench.batches.new(2), bench.batches.new(3)
    bench.log.append_owed("worker", owed.frames, 2)
    bench.append(damaged)
    path = bench.segments()[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for position in (0, damaged.position):
        assert bench.reopen().read(position, bench.log.end, MIB) == ([], bench.log.end, 3)


@pytest.mark.parametrize("size", [20, 9000])
@pytest.mark.parametrize("count", [1, 2, 4, 1 << 31])
def test_a_record_with_other_messages_than_it_says_is_damaged(size: int, count: int, bench: Bench) -> None:
    """Its checksum is right."""
    batches = [bench.batches.new(3, size) for _ in range(3)]
    wrong = broken(batches[1], count)
    bench.append(batches[0], wrong, batches[2])
    log = bench.reopen()
    for _ in range(2):
        assert joined(bench.read_all()) == joined([batches[0], batches[2]])
        assert joined(bench.read_all(wrong.position, 1)) == joined([batches[2]])
        assert list(log.fetch(wrong.position, [*batches[1].ids, batches[2].ids[1]])) == [batches[2].ids[1]]
    place = 3 * size + 12 + 24 + HEADER
    assert (log.damaged_records, log.damaged_bytes) == (1, place)
    ((_, said),) = bench.reports
    assert said.startswith(f"{place} bytes at {wrong.position} of {bench.segments()[0]} are damaged and passed over: ")
    assert list(bench.bad()) == [f"{wrong.position:020d}.bad"]


def test_records_with_damage_between_are_no_batch(bench: Bench) -> None:
    """Who was given a part of one skips that many messages after a restart, by their numbers."""
    batches = [bench.batches.new(3) for _ in range(4)]
    bench.append(batches[0], broken(batches[1], 2), batches[2], batches[3])
    some, _, _ = bench.log.read(0, bench.log.end, MIB)
    assert [(one.position, len(one)) for one in some] == [(batches[0].position, 3), (batches[2].position, 6)]


def test_a_log_that_ends_with_a_record_of_other_messages(bench: Bench) -> None:
    first, last = bench.batches.new(3), bench.batches.new(3)
    bench.append(first, broken(last, 2))
    log = bench.reopen()
    batches, position, _ = log.read(0, log.end, MIB)
    assert joined(batches) == joined([first])
    assert log.read(position, log.end, MIB) == ([], log.end, log.end_sequence)
    assert log.damaged_records == 1
    later = bench.batches.new()
    bench.append(later)
    assert joined(bench.read_all()) == joined([first, later])


def test_a_read_of_short_messages_is_not_as_long_as_their_frames(bench: Bench) -> None:
    """Their frames are made when they are read, and nobody else has a turn meanwhile."""
    many = [bench.batches.new(2000, 6) for _ in range(6)]
    bench.append(*many)
    some, position, sequence = bench.log.read(0, bench.log.end, 1 << 17)
    assert ([one.position for one in some], sequence) == ([many[0].position, many[1].position], 4000)
    assert position == many[2].position
    assert joined(bench.read_all(max_bytes=1 << 17)) == joined(many)


def test_less_is_left_than_was_known(bench: Bench) -> None:
    """After a loss of power: no cursor that was kept may find other messages at its position than it stood at."""
    first, lost, later = bench.batches.new(2), bench.batches.new(3), bench.batches.new(1)
    bench.append(first, lost)
    end = bench.log.end
    path = bench.segments()[0]
    path.write_bytes(path.read_bytes()[: lost.position])
    log = bench.reopen(end, 5)
    assert (log.end, log.end_sequence, log.damaged_records, log.damaged_bytes) == (end, 5, 1, end - lost.position)
    assert bench.reports == [
        (
            TOPIC,
            f"{end - lost.position} bytes at position {lost.position} of {bench.folder} are missing and passed over",
        )
    ]
    assert log.read(end, end, MIB) == ([], end, 5)
    log.append(later)
    assert later.position == end + HEADER
    assert joined(bench.read_all()) == joined([first, later])
    assert joined(log.read(end, log.end, MIB)[0]) == joined([later])
    bench.reopen(end, 5)
    assert (bench.log.end_sequence, joined(bench.read_all())) == (6, joined([first, later]))


def test_all_files_were_removed(bench: Bench) -> None:
    bench.append(bench.batches.new(2))
    end = bench.log.end
    bench.segments()[0].unlink()
    log = bench.reopen(end, 2)
    assert (log.start, log.end, log.end_sequence, bench.reports) == (end, end, 2, [])
    bench.append(bench.batches.new(1))
    assert (log.start, log.end_sequence) == (end + HEADER, 3)


def test_a_segment_in_the_middle_is_missing(small: Bench) -> None:
    many = [small.batches.new(3, 50) for _ in range(12)]
    small.append(*many)
    (base, size) = small.log.live_segments()[1]
    small.segments()[1].unlink()
    log = small.reopen()
    left = [batch for batch in many if not base <= batch.position < base + size]
    assert log.read(HEADER, HEADER, MIB) == ([], HEADER, 0)
    assert log.damaged_records == 0
    for _ in range(2):
        assert joined(small.read_all()) == joined(left)
    assert (log.damaged_records, log.damaged_bytes) == (1, size)
    first_behind = next(batch for batch in many if batch.position > base + size)
    sequence = 3 * many.index(first_behind)
    assert log.read(base, base + size, MIB) == ([], base + size, sequence)
    assert joined(small.read_all(base + 40)) == joined([batch for batch in left if batch.position > base])


def test_a_segment_in_the_middle_is_cut_short(small: Bench) -> None:
    many = [small.batches.new(3, 50) for _ in range(12)]
    small.append(*many)
    (base, size) = small.log.live_segments()[1]
    path = small.segments()[1]
    path.write_bytes(path.read_bytes()[:-10])
    log = small.reopen()
    last = max(batch.position for batch in many if batch.position < base + size)
    assert joined(small.read_all()) == joined([batch for batch in many if batch.position != last])
    assert log.damaged_bytes == base + size - last


def test_the_node_died_while_it_rolled(small: Bench) -> None:
    """The next segment is there, with any part of its header, or of its first record behind it."""
    many = [small.batches.new(3, 50) for _ in range(12)]
    small.append(*many)
    *before, last = small.segments()
    whole = last.read_bytes()
    base = small.log.live_segments()[-1][0]
    left = [batch for batch in many if batch.position < base]
    for size in range(HEADER + record_size(many[0])):
        last.write_bytes(whole[:size])
        log = small.reopen()
        assert (log.end, log.end_sequence) == (base + (HEADER if size >= HEADER else 0), 3 * len(left))
        assert joined(small.read_all()) == joined(left)
        later = small.batches.new(1)
        log.append(later)
        assert small.segments() in ([*before, last], before)
        assert joined(small.read_all()) == joined([*left, later])
        if small.segments() == before:  # it fitted into the one before
            before[-1].write_bytes(before[-1].read_bytes()[: later.position - int(before[-1].stem)])
    assert small.reports == []


def test_foreign_files_are_left_alone(small: Bench) -> None:
    many = [small.batches.new(3, 50) for _ in range(12)]
    small.append(*many)
    base = small.log.live_segments()[1][0]
    foreign = {
        "notes.txt": b"hello",
        "123.seg": b"x" * 50,
        f"{1 << 62:020d}.seg": b"x" * 50,
        f"{base + 100:020d}.seg": b"garbage in the middle of a segment" * 3,
        f"{base + 50:020d}.seg": pack_segment_header(5, base, 3),
    }
    for name, content in foreign.items():
        (small.folder / name).write_bytes(content)
    (small.folder / f"{base + 60:020d}.seg").mkdir()
    log = small.reopen()
    assert sorted(text.split(" ")[0] for _, text in small.reports) == sorted(
        str(small.folder / name) for name in [*foreign, f"{base + 60:020d}.seg"]
    )
    assert joined(small.read_all()) == joined(many)
    log.release(log.end)
    for name, content in foreign.items():
        assert (small.folder / name).read_bytes() == content
    assert (log.damaged_records, small.bad()) == (0, {})


def test_a_file_that_is_no_segment_at_all(bench: Bench) -> None:
    """It has the name of the last segment: set aside, served around, and never appended to."""
    first, later = bench.batches.new(2), bench.batches.new(1)
    bench.append(first)
    end = bench.log.end
    (bench.folder / f"{end:020d}.seg").write_bytes(b"garbage!" * 10)
    log = bench.reopen()
    assert (log.end, log.end_sequence) == (end + 80, 2)
    log.append(later)
    assert later.position == end + 80 + HEADER
    assert joined(bench.read_all()) == joined([first, later])
    assert (log.damaged_records, log.damaged_bytes) == (2, 80)
    assert b"".join(bench.bad().values()) == b"garbage!" * 10


def test_a_damaged_segment_header_costs_no_message(small: Bench) -> None:
    many = [small.batches.new(3, 50) for _ in range(12)]
    small.append(*many)
    for path in small.segments():
        path.write_bytes(bytes(32) + path.read_bytes()[32:])
    log = small.reopen()
    assert log.end_sequence == 36
    later = small.batches.new(1)
    log.append(later)
    assert joined(small.read_all()) == joined([*many, later])
    assert log.damaged_records == len(small.segments()) - 1


def test_a_later_version_is_refused_and_nothing_touched(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    small.append(*[small.batches.new(3, 50) for _ in range(12)])
    with monkeypatch.context() as later:
        later.setattr("pynsqd.storage.format.VERSION", VERSION + 1)
        header = pack_segment_header(1, 0, 0)
    first, *_, last = small.segments()
    first.write_bytes(header + first.read_bytes()[32:])
    last.write_bytes(last.read_bytes()[:-1])  # torn
    (small.folder / f"{small.log.end:020d}.seg").write_bytes(b"")  # a roll that did not end
    before = {path: path.read_bytes() for path in small.folder.iterdir()}
    with pytest.raises(
        StartupError,
        match=rf"^failed to open topic log - {first} is of version {VERSION + 1}, this is version {VERSION}$",
    ):
        small.reopen()
    with pytest.raises(StartupError):
        small.store.check()
    assert {path: path.read_bytes() for path in small.folder.iterdir()} == before


def test_a_backlog_of_many_segments_opens_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, 200_000)
    bench.append(*[bench.batches.new(200, 200) for _ in range(100)])
    assert len(bench.segments()) == 25
    FailingFiles(monkeypatch).fail_reads(range(200, 100_000))
    log = bench.reopen()
    assert log.damaged_records == 0
    assert log.end_sequence == 20_000
    log.close()


# -- a disk that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 31, 32, 100])
@pytest.mark.parametrize("roll", [False, True])
def test_a_full_disk_takes_nothing_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, roll: bool
) -> None:
    bench = Bench(tmp_path, 300 if roll else MIB)
    first, refused, later = bench.batches.new(2, 60), bench.batches.new(1, 70), bench.batches.new(1, 1)
    bench.append(first)
    end = bench.log.end
    failing = FailingFiles(monkeypatch)
    failing.full_after(room)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"^write .*\.seg: no space left on device$"):
            bench.append(refused)
        assert refused.position == -1
        assert (bench.log.end, bench.log.end_sequence) == (end, 2)
        assert joined(bench.read_all()) == joined([first])
        failing.full_after(room)
    assert len(bench.segments()) == 1
    failing.heal()
    bench.append(later)
    for _ in range(2):
        assert joined(bench.read_all()) == joined([first, later])
        assert bench.log.end_sequence == 3
        bench.reopen()
    assert bench.reports == []
    bench.log.close()


@pytest.mark.parametrize("heal_before_reopen", [False, True])
@pytest.mark.parametrize("roll", [False, True])
def test_a_write_that_cannot_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heal_before_reopen: bool, roll: bool
) -> None:
    bench = Bench(tmp_path, 330 if roll else MIB)
    first, refused, later = bench.batches.new(2, 60), bench.batches.new(1, 70), bench.batches.new(1, 1)
    bench.append(first)
    end = bench.log.end
    failing = FailingFiles(monkeypatch)
    failing.full_after(60)
    failing.fail("truncate")
    failing.fail("unlink")
    with pytest.raises(StorageError):
        bench.append(refused)
    if heal_before_reopen:
        failing.heal()
        bench.append(later)
        assert len(bench.segments()) == 2
        expected = [first, later]
    else:
        failing.full_after(-1)
        expected = [first]
    assert joined(bench.read_all()) == joined(expected)
    log = bench.reopen()
    assert joined(bench.read_all()) == joined(expected)
    failing.heal()
    more = bench.batches.new(1)
    log.append(more)
    assert more.position > end
    assert joined(bench.read_all()) == joined([*expected, more])
    bench.reopen()
    assert joined(bench.read_all()) == joined([*expected, more])
    assert bench.reports == []
    bench.log.close()


def test_short_writes_that_go_on_are_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    FailingFiles(monkeypatch).write_at_most(7)
    many = [bench.batches.new(3) for _ in range(3)]
    bench.append(*many)
    assert joined(bench.read_all()) == joined(many)


@pytest.mark.parametrize("before", [0, 1, 900])
def test_batches_in_one_write_are_records_that_follow_each_other(small: Bench, before: int) -> None:
    """Also where they begin a segment: they stay together, in one that is larger than most."""
    first = small.batches.new(1, before) if before else None
    if first:
        small.append(first)
    many = [small.batches.new(count, 100) for count in (3, 1, 2)]
    small.log.stage(many[:-1])
    small.log.append(many[-1])
    positions = [batch.position for batch in many]
    assert positions == sorted(positions)
    assert len({segment.stat().st_size for segment in small.segments()}) == (2 if before == 900 else 1)
    for log in (small.log, small.reopen()):
        assert log.end_sequence == 6 + bool(first)
        assert log.end == positions[-1] + record_size(many[-1])
        for batch, sequence in zip(many, (3, 4, 6), strict=True):
            read, _, behind = log.read(batch.position, batch.position + 1, 1)
            assert (joined(read), behind) == (joined([batch]), sequence + bool(first))


@pytest.mark.parametrize("room", [0, 1, 100, 400, 700])
def test_batches_in_one_write_are_appended_all_or_not_at_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    first = bench.batches.new()
    bench.append(first)
    end, sequence = bench.log.end, bench.log.end_sequence
    many = [bench.batches.new(2, 100) for _ in range(3)]
    failing = FailingFiles(monkeypatch)
    failing.full_after(room)
    with pytest.raises(StorageError, match="no space left on device"):
        bench.log.stage(many[:-1])
        bench.log.append(many[-1])
    assert (bench.log.end, bench.log.end_sequence) == (end, sequence)
    failing.heal()
    assert joined(bench.read_all()) == joined([first])
    bench.reopen()
    assert joined(bench.read_all()) == joined([first])


def test_a_folder_that_cannot_be_made(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "topics").write_bytes(b"")
    with pytest.raises(StorageError, match=r"^mkdir .*orders.log: not a directory$"):
        bench.append(bench.batches.new())
    (tmp_path / "topics").unlink()
    bench.append(bench.batches.new())


def test_the_log_goes_on_in_a_new_segment_after_a_failed_sync(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = bench.batches.new(), bench.batches.new()
    bench.append(first)
    failing = FailingFiles(monkeypatch)
    failing.fail("fdatasync")
    with pytest.raises(StorageError, match=r"^sync .*\.seg: input/output error$"):
        bench.log.sync()
    failing.heal()
    bench.append(second)
    assert len(bench.segments()) == 2
    bench.log.sync()
    assert failing.calls["fdatasync"] == 1
    assert joined(bench.read_all()) == joined([first, second])


def test_a_segment_that_is_sealed_goes_however_small(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(bench.batches.new())
    failing = FailingFiles(monkeypatch)
    failing.fail("fdatasync")
    with pytest.raises(StorageError):
        bench.log.sync()
    bench.log.release(bench.log.end)
    assert bench.segments() == []


def test_appends_reads_and_rolls_go_on_beside_a_slow_sync(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFiles(monkeypatch)
    many = [small.batches.new(3, 50) for _ in range(12)]
    small.append(many[0])
    go_on = failing.hold("fdatasync")
    thread = threading.Thread(target=small.log.sync)
    thread.start()
    failing.wait_for("fdatasync")
    small.append(*many[1:])
    assert joined(small.read_all()) == joined(many)
    go_on.set()
    thread.join()
    assert failing.calls["fdatasync"] == 1
    small.log.sync()
    assert failing.calls["fdatasync"] == 1 + len(small.segments())


def test_probe_tells_whether_the_disk_takes_writes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.log.probe()
    failing = FailingFiles(monkeypatch)
    failing.full_after(100)
    with pytest.raises(StorageError, match=r"^write .*/probe: no space left on device$"):
        bench.log.probe()
    assert os.listdir(bench.folder) == []


def test_damage_that_cannot_be_set_aside_is_passed_over_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bench.batches.new(), bench.batches.new()
    bench.append(first, second)
    path = bench.segments()[0]
    path.write_bytes(path.read_bytes()[:64] + b"?" + path.read_bytes()[65:])
    bench.reopen()
    FailingFiles(monkeypatch).full_after(10)
    assert joined(bench.read_all()) == joined([second])
    ((_, text),) = bench.reports
    assert text.endswith("wrong checksum; could not be set aside: [Errno 28] No space left on device")


def test_a_segment_the_disk_cannot_read_is_kept_when_it_is_released(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be read another day, so what was passed over in it is not thrown away."""
    many = [small.batches.new(3, 50) for _ in range(12)]
    small.append(*many)
    first, second, *_ = small.segments()
    data = first.read_bytes()
    failing = FailingFiles(monkeypatch)
    monkeypatch.setattr("pynsqd.storage.segment._BLOCK", 16)
    failing.fail_reads(range(40, 41))
    batches, _, _ = small.log.read(0, int(second.stem), MIB)
    assert joined(batches) == joined([batch for batch in many if 0 < batch.position - HEADER < int(second.stem)])
    failing.heal()
    small.log.release(int(small.segments()[2].stem))
    assert small.bad()[first.name] == data
    assert second.name not in small.bad()


# -- retain ------------------------------------------------------------------------------------------------------


def test_released_segments_are_removed(small: Bench) -> None:
    many = [small.batches.new(3, 50) for _ in range(12)]
    positions = small.append(*many)
    segments = small.log.live_segments()
    small.log.release(segments[2][0] - 1)
    assert small.log.live_segments() == segments[1:]
    small.log.release(segments[2][0])
    assert small.log.live_segments() == segments[2:]
    assert [int(path.stem) for path in small.segments()] == [base for base, _ in segments[2:]]
    assert small.log.start == segments[2][0] + HEADER
    left = [batch for batch, position in zip(many, positions, strict=True) if position >= segments[2][0]]
    for position in (0, positions[1], segments[2][0]):
        assert joined(small.read_all(position)) == joined(left)
    assert small.log.fetch(positions[0], many[0].ids) == {}
    assert small.reports == []


def test_the_open_segment_goes_once_all_of_it_was_released(small: Bench) -> None:
    small.append(small.batches.new(1, 100))
    end = small.log.end
    small.log.release(end)
    assert len(small.segments()) == 1  # small: not worth a new one
    small.append(small.batches.new(1, 300))
    end = small.log.end
    small.log.release(end - 1)
    assert len(small.segments()) == 1
    small.log.release(end)
    assert small.segments() == []
    assert (small.log.start, small.log.end, small.log.end_sequence) == (end, end, 2)
    assert small.log.read(end, end, MIB) == ([], end, 2)
    later = small.batches.new(1, 450)
    small.append(later)
    assert joined(small.read_all()) == joined([later])
    end = small.log.end
    small.log.release(end)
    assert small.segments() == []
    small.reopen(end, 3)
    later = small.batches.new()
    small.append(later)
    assert (later.position, small.log.end_sequence) == (end + HEADER, 4)
    assert joined(small.read_all(end)) == joined(small.read_all()) == joined([later])
    assert small.reports == []


def test_segments_are_removed_under_an_open_descriptor(small: Bench) -> None:
    """Whoever has the file open, as the log's reader or another program does, can read it to its end."""
    small.append(*[small.batches.new(3, 50) for _ in range(12)])
    small.read_all()
    path = small.segments()[0]
    data = path.read_bytes()
    with path.open("rb") as reader:
        small.log.release(small.log.end)
        assert not path.exists()
        assert reader.read() == data
    open_files = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists() or link.is_symlink()]
    assert not [name for name in open_files if str(small.folder) in name]


def test_a_segment_that_cannot_be_removed_is_tried_again(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    small.append(*[small.batches.new(3, 50) for _ in range(12)])
    failing = FailingFiles(monkeypatch)
    failing.fail("rename")
    failing.fail("unlink")
    start = small.log.start
    small.log.release(small.log.end)
    assert small.log.start == start
    assert [text.split(" ")[0] for _, text in small.reports] == ["remove"]
    failing.heal()
    small.segments()[0].unlink()  # somebody else did
    small.log.release(small.log.end)
    assert small.segments() == []


def test_no_file_is_unlinked_in_the_thread_of_the_log(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """To free 100 MB takes long enough to be felt by everybody; the names are gone at once."""
    small.append(*[small.batches.new(3, 50) for _ in range(12)])
    go_on = FailingFiles(monkeypatch).hold("unlink")
    small.log.release(small.log.end - 1)
    assert len(small.segments()) == 1
    small.log.delete()
    assert not small.folder.exists()
    go_on.set()
    small.store.close()
    assert small.reports == []


def test_delete_removes_all_files(small: Bench, tmp_path: Path) -> None:
    small.append(*[small.batches.new(3, 50) for _ in range(12)])
    for name in ("deferred/1.def", "bad/1.bad", "bad/1.seg", "probe"):
        (small.folder / name).parent.mkdir(exist_ok=True)
        (small.folder / name).touch()
    small.log.delete()
    assert os.listdir(tmp_path / "topics") == ["removed"]
    small.log.delete()
    assert small.store.open(TOPIC).end == 0
    small.store.close()
    assert os.listdir(tmp_path / "topics" / "removed") == []
    assert small.reports == []


def test_a_probe_does_not_make_the_folder_of_a_deleted_topic(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that is under way: the log is deleted when it is over."""
    failing = FailingFiles(monkeypatch)
    small.append(small.batches.new())
    go_on = failing.hold("fdatasync")
    probe, delete = threading.Thread(target=small.log.probe), threading.Thread(target=small.log.delete)
    probe.start()
    until = monotonic() + 60
    while not failing.calls["fdatasync"] and monotonic() < until:
        sleep(0.001)
    delete.start()
    go_on.set()
    probe.join(10)
    delete.join(10)
    assert not small.folder.exists()
    small.log.probe()
    assert not small.folder.exists()
    assert small.reports == []


def test_delete_leaves_foreign_files_and_says_so(small: Bench, tmp_path: Path) -> None:
    small.append(small.batches.new())
    (small.folder / "notes.txt").touch()
    small.log.delete()
    small.store.close()
    (left,) = (tmp_path / "topics" / "removed").iterdir()
    assert os.listdir(left) == ["notes.txt"]
    assert small.reports == [(TOPIC, f"remove {left}: directory not empty")]


def test_a_topic_that_cannot_be_deleted_is_reported(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    small.append(small.batches.new())
    failing = FailingFiles(monkeypatch)
    failing.fail("rename")
    failing.fail("unlink")
    small.log.delete()
    assert small.reports == [(TOPIC, f"remove {small.folder}: input/output error")]
