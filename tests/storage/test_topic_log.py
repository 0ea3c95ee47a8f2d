"""The log of a topic: promises P1, P5, P6 and P7 at the level of files."""

import os
import threading
from pathlib import Path
from time import monotonic, sleep

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pynsqd.core.batch import Batch
from pynsqd.storage.format import VERSION, pack_segment_header
from pynsqd.wire.errors import StartupError, StorageError
from tests.support.batches import joined, record_size
from tests.support.failing_files import FailingFiles
from tests.support.log_bench import HEADER, MIB, TOPIC, LogBench

# -- append and read ---------------------------------------------------------------------------------------------


def test_a_new_log_is_empty_and_touches_nothing(bench: LogBench, tmp_path: Path) -> None:
    log = bench.log
    assert (log.start, log.end, log.end_sequence, log.live_segments()) == (0, 0, 0, [])
    assert log.read(0, 0, MIB) == ([], 0, 0)
    assert log.fetch(0, [b"x" * 16]) == {}
    assert list(log.owed_since(0)) == []
    log.release(0)
    log.sync()
    assert os.listdir(tmp_path) == []


def test_what_is_appended_is_read(bench: LogBench) -> None:
    first, second = bench.batches.new(3, 6000), bench.batches.new(2, 9000)
    assert bench.append(first, second) == [HEADER, HEADER + record_size(first)]
    batches, position, sequence = bench.log.read(0, bench.log.end, MIB)
    assert (position, sequence) == (bench.log.end, bench.log.end_sequence) == (second.position + HEADER + 18032, 5)
    assert [(one.position, one.ids, one.frames) for one in batches] == [
        (one.position, one.ids, one.frames) for one in (first, second)
    ]
    assert bench.log.start == HEADER


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 300), st.booleans()), max_size=40),
    st.integers(200, 3000),
    st.integers(0, 5000),
)
def test_any_batches_any_rolls_any_position(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int, bool]], max_bytes: int, chunk: int
) -> None:
    bench = LogBench(tmp_path_factory.mktemp("any"), max_bytes)
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


# -- restarts ----------------------------------------------------------------------------------------------------


def test_positions_and_sequences_go_on_over_restarts(small: LogBench) -> None:
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


def test_a_torn_append_is_cut_at_every_byte(bench: LogBench) -> None:
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
    bench = LogBench(tmp_path)
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
    bench = LogBench(tmp_path_factory.mktemp("any"), 600)
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


def test_less_is_left_than_was_known(bench: LogBench) -> None:
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


def test_all_files_were_removed(bench: LogBench) -> None:
    bench.append(bench.batches.new(2))
    end = bench.log.end
    bench.segments()[0].unlink()
    log = bench.reopen(end, 2)
    assert (log.start, log.end, log.end_sequence, bench.reports) == (end, end, 2, [])
    bench.append(bench.batches.new(1))
    assert (log.start, log.end_sequence) == (end + HEADER, 3)


def test_a_segment_in_the_middle_is_missing(small: LogBench) -> None:
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


def test_a_segment_in_the_middle_is_cut_short(small: LogBench) -> None:
    many = [small.batches.new(3, 50) for _ in range(12)]
    small.append(*many)
    (base, size) = small.log.live_segments()[1]
    path = small.segments()[1]
    path.write_bytes(path.read_bytes()[:-10])
    log = small.reopen()
    last = max(batch.position for batch in many if batch.position < base + size)
    assert joined(small.read_all()) == joined([batch for batch in many if batch.position != last])
    assert log.damaged_bytes == base + size - last


def test_the_node_died_while_it_rolled(small: LogBench) -> None:
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


def test_foreign_files_are_left_alone(small: LogBench) -> None:
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


def test_a_file_that_is_no_segment_at_all(bench: LogBench) -> None:
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


def test_a_damaged_segment_header_costs_no_message(small: LogBench) -> None:
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


def test_a_later_version_is_refused_and_nothing_touched(small: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
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
    bench = LogBench(tmp_path, 200_000)
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
    bench = LogBench(tmp_path, 300 if roll else MIB)
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
    bench = LogBench(tmp_path, 330 if roll else MIB)
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


def test_short_writes_that_go_on_are_whole(bench: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
    FailingFiles(monkeypatch).write_at_most(7)
    many = [bench.batches.new(3) for _ in range(3)]
    bench.append(*many)
    assert joined(bench.read_all()) == joined(many)


@pytest.mark.parametrize("before", [0, 1, 900])
def test_batches_in_one_write_are_records_that_follow_each_other(small: LogBench, before: int) -> None:
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
    bench: LogBench, monkeypatch: pytest.MonkeyPatch, room: int
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


def test_a_folder_that_cannot_be_made(bench: LogBench, tmp_path: Path) -> None:
    (tmp_path / "topics").write_bytes(b"")
    with pytest.raises(StorageError, match=r"^mkdir .*orders.log: not a directory$"):
        bench.append(bench.batches.new())
    (tmp_path / "topics").unlink()
    bench.append(bench.batches.new())


def test_the_log_goes_on_in_a_new_segment_after_a_failed_sync(bench: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_segment_that_is_sealed_goes_however_small(bench: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(bench.batches.new())
    failing = FailingFiles(monkeypatch)
    failing.fail("fdatasync")
    with pytest.raises(StorageError):
        bench.log.sync()
    bench.log.release(bench.log.end)
    assert bench.segments() == []


def test_appends_reads_and_rolls_go_on_beside_a_slow_sync(small: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_probe_tells_whether_the_disk_takes_writes(bench: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.log.probe()
    failing = FailingFiles(monkeypatch)
    failing.full_after(100)
    with pytest.raises(StorageError, match=r"^write .*/probe: no space left on device$"):
        bench.log.probe()
    assert os.listdir(bench.folder) == []


def test_damage_that_cannot_be_set_aside_is_passed_over_all_the_same(
    bench: LogBench, monkeypatch: pytest.MonkeyPatch
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
    small: LogBench, monkeypatch: pytest.MonkeyPatch
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


def test_released_segments_are_removed(small: LogBench) -> None:
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


def test_the_open_segment_goes_once_all_of_it_was_released(small: LogBench) -> None:
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


def test_segments_are_removed_under_an_open_descriptor(small: LogBench) -> None:
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


def test_a_segment_that_cannot_be_removed_is_tried_again(small: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_no_file_is_unlinked_in_the_thread_of_the_log(small: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_delete_removes_all_files(small: LogBench, tmp_path: Path) -> None:
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


def test_a_probe_does_not_make_the_folder_of_a_deleted_topic(small: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_delete_leaves_foreign_files_and_says_so(small: LogBench, tmp_path: Path) -> None:
    small.append(small.batches.new())
    (small.folder / "notes.txt").touch()
    small.log.delete()
    small.store.close()
    (left,) = (tmp_path / "topics" / "removed").iterdir()
    assert os.listdir(left) == ["notes.txt"]
    assert small.reports == [(TOPIC, f"remove {left}: directory not empty")]


def test_a_topic_that_cannot_be_deleted_is_reported(small: LogBench, monkeypatch: pytest.MonkeyPatch) -> None:
    small.append(small.batches.new())
    failing = FailingFiles(monkeypatch)
    failing.fail("rename")
    failing.fail("unlink")
    small.log.delete()
    assert small.reports == [(TOPIC, f"remove {small.folder}: input/output error")]
