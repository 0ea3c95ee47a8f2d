"""What is read of a log: joined and not, for all channels and for one, and damage passed over."""

from typing import Any

import pytest

from pynsqd.storage import log_reader
from pynsqd.storage.format import plain_messages
from pynsqd.wire.encoder import split_frames
from tests.support.batches import broken, joined, record_size
from tests.support.failing_files import FailingFiles
from tests.support.log_bench import HEADER, MIB, LogBench


def test_small_records_are_joined(bench: LogBench) -> None:
    many = [bench.batches.new(count) for count in (1, 1, 4, 1, 2)]
    bench.append(*many)
    (batch,), _, sequence = bench.log.read(0, bench.log.end, MIB)
    assert (batch.ids, batch.frames) == joined(many)
    assert (batch.position, sequence) == (many[0].position, 9)


def test_large_records_are_not_joined(bench: LogBench) -> None:
    """That would copy them, and a batch of that size is as good as a larger one."""
    many = [bench.batches.new(1, size) for size in (20, 20, 20_000, 20, 20_000, 20_000, 20)]
    positions = bench.append(*many)
    batches, _, _ = bench.log.read(0, bench.log.end, MIB)
    assert [len(batch) for batch in batches] == [2, 1, 1, 1, 1, 1]
    assert [batch.position for batch in batches] == [positions[0], *positions[2:]]
    assert joined(batches) == joined(many)


def test_a_joined_batch_spans_what_fetch_looks_at(bench: LogBench) -> None:
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


def test_ids_that_do_not_follow_each_other(bench: LogBench) -> None:
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


def test_a_read_gives_about_as_much_as_asked_but_at_least_one_record(bench: LogBench) -> None:
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


def test_a_read_stops_where_it_is_told(bench: LogBench) -> None:
    many = [bench.batches.new(2, 5000) for _ in range(4)]
    positions = bench.append(*many)
    batches, position, sequence = bench.log.read(positions[1], positions[3], MIB)
    assert joined(batches) == joined(many[1:3])
    assert (position, sequence) == (positions[3], 6)
    assert bench.log.read(positions[2], positions[2], MIB) == ([], positions[2], 4)
    assert bench.log.read(bench.log.end, bench.log.end, MIB) == ([], bench.log.end, 8)
    assert bench.log.read(0, 0, MIB) == ([], bench.log.start, 0)
    assert bench.log.read(bench.log.end, 1 << 40, MIB) == ([], bench.log.end, 8)


def test_what_one_channel_owes_is_read_by_nobody_else(bench: LogBench) -> None:
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


def test_a_read_goes_on_behind_what_is_owed(bench: LogBench) -> None:
    owed, plain = bench.batches.new(1, 3000), bench.batches.new(2)
    for _ in range(100):
        bench.log.append_owed("worker", owed.frames, 1)
    bench.append(plain)
    assert joined(bench.log.read(0, bench.log.end, 1)[0]) == joined([plain])


def test_owed_since(bench: LogBench) -> None:
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


def test_fetch_finds_what_is_near(small: LogBench) -> None:
    many = [small.batches.new(3, 50) for _ in range(30)]
    positions = small.append(*many)
    frames = {one: frame for batch in many for one, frame in zip(batch.ids, split_frames(batch.frames), strict=True)}
    assert len(small.segments()) > 5
    wanted = [many[3].ids[2], many[20].ids[0]]
    assert small.log.fetch(positions[3], wanted) == {one: frames[one] for one in wanted}
    assert small.log.fetch(positions[4], wanted) == {wanted[1]: frames[wanted[1]]}
    assert small.log.fetch(positions[3], [b"f" * 16]) == {}


def test_fetch_makes_frames_of_no_more_than_it_must(bench: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [bench.batches.new(2) for _ in range(10)]
    bench.append(*many)
    made = []

    def noted(*record: Any) -> tuple[list[bytes], bytes]:
        made.append(record)
        return plain_messages(*record)

    monkeypatch.setattr(log_reader, "plain_messages", noted)
    assert list(bench.log.fetch(many[3].position, many[4].ids)) == many[4].ids
    assert len(made) == 2


def test_fetch_reads_no_further_than_it_must(bench: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [bench.batches.new(1, 50_000) for _ in range(10)]
    bench.append(*many)
    failing = FailingFiles(monkeypatch)
    assert len(bench.log.fetch(many[0].position, many[0].ids)) == 1
    assert failing.calls["pread"] == 1


def test_fetch_gives_up_after_a_mebibyte(bench: LogBench) -> None:
    near, between, far = bench.batches.new(), bench.batches.new(1, MIB), bench.batches.new()
    bench.append(near, between, far)
    assert bench.log.fetch(near.position, [far.ids[0]]) == {}
    assert bench.log.fetch(between.position, [far.ids[0]]) == {}
    assert len(bench.log.fetch(near.position, between.ids)) == 1
    assert len(bench.log.fetch(between.position + 100, far.ids)) == 1


def test_damage_is_passed_over_in_the_read_that_meets_it(bench: LogBench) -> None:
    owed, damaged = bench.batches.new(2), bench.batches.new(3)
    bench.log.append_owed("worker", owed.frames, 2)
    bench.append(damaged)
    path = bench.segments()[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for position in (0, damaged.position):
        assert bench.reopen().read(position, bench.log.end, MIB) == ([], bench.log.end, 3)


@pytest.mark.parametrize("size", [20, 9000])
@pytest.mark.parametrize("count", [1, 2, 4, 1 << 31])
def test_a_record_with_other_messages_than_it_says_is_damaged(size: int, count: int, bench: LogBench) -> None:
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


def test_records_with_damage_between_are_no_batch(bench: LogBench) -> None:
    """Who was given a part of one skips that many messages after a restart, by their numbers."""
    batches = [bench.batches.new(3) for _ in range(4)]
    bench.append(batches[0], broken(batches[1], 2), batches[2], batches[3])
    some, _, _ = bench.log.read(0, bench.log.end, MIB)
    assert [(one.position, len(one)) for one in some] == [(batches[0].position, 3), (batches[2].position, 6)]


def test_a_log_that_ends_with_a_record_of_other_messages(bench: LogBench) -> None:
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


def test_a_read_of_short_messages_is_not_as_long_as_their_frames(bench: LogBench) -> None:
    """Their frames are made when they are read, and nobody else has a turn meanwhile."""
    many = [bench.batches.new(2000, 6) for _ in range(6)]
    bench.append(*many)
    some, position, sequence = bench.log.read(0, bench.log.end, 1 << 17)
    assert ([one.position for one in some], sequence) == ([many[0].position, many[1].position], 4000)
    assert position == many[2].position
    assert joined(bench.read_all(max_bytes=1 << 17)) == joined(many)
