"""One segment file: append, read, recover, sync."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pynsqd.storage import files
from pynsqd.storage.descriptors import Descriptors
from pynsqd.storage.format import BATCH, OWED, VERSION, SegmentHeader, pack_segment_header
from pynsqd.storage.segment import Segment, Unsynced, read_header
from pynsqd.wire.errors import StartupError, StorageError
from tests.support.failing_files import FailingFiles

BASE = 1 << 33  # so that positions do not fit 32 bits
SALT = 77
HEADER = SegmentHeader(VERSION, SALT, BASE, 5)
FIRST = BASE + 32


class Bench:
    """A segment file, and what was reported about it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "one.seg"
        self.damage: list[tuple[int, int, str]] = []
        self.descriptors = Descriptors()
        self.segment = self.open(0)

    def open(self, size: int = -1) -> Segment:
        """Open the file as it is."""
        size = self.path.stat().st_size if size < 0 else size
        self.segment = Segment(
            self.path,
            HEADER,
            size,
            self.descriptors,
            lambda _, position, size, why: self.damage.append((position, size, why)),
        )
        if size:
            self.segment.open_flags = files.APPEND
        return self.segment

    def append(self, *payloads: bytes) -> list[int]:
        return [self.segment.append(BATCH, 1, number, payload) for number, payload in enumerate(payloads)]

    def read(self, position: int = BASE, stop: int = 1 << 40, chunk: int = 1 << 16) -> list[bytes]:
        return [record[5] for run in self.segment.runs(position, stop, chunk) for record in run]

    def change(self, change: Callable[[bytearray], None]) -> None:
        """Change the bytes of the file behind everybody's back."""
        data = bytearray(self.path.read_bytes())
        change(data)
        self.path.write_bytes(data)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.segment.close()


def test_what_is_appended_is_read(bench: Bench) -> None:
    positions = bench.append(b"one", b"two two", b"")
    assert positions == [FIRST, FIRST + 35, FIRST + 74]
    assert bench.segment.end == FIRST + 106
    (run,) = bench.segment.runs(BASE, bench.segment.end, 1 << 16)
    assert run == [
        (FIRST, BATCH, 0, 1, 0, b"one"),
        (FIRST + 35, BATCH, 0, 1, 1, b"two two"),
        (FIRST + 74, BATCH, 0, 1, 2, b""),
    ]
    assert bench.path.read_bytes()[:32] == pack_segment_header(SALT, BASE, 5)
    assert bench.path.stat().st_size == bench.segment.size


def test_reads_what_begins_before_stop(bench: Bench) -> None:
    first, second, third = bench.append(b"one", b"two", b"three")
    assert bench.read(second, third) == [b"two"]
    assert bench.read(first, first) == []
    assert bench.read(first, second + 1) == [b"one", b"two"]


@pytest.mark.parametrize("chunk", [0, 1, 31, 32, 33, 100, 4096])
def test_any_chunk_will_do(bench: Bench, chunk: int) -> None:
    payloads = [bytes([number]) * (number * 7) for number in range(30)]
    bench.append(*payloads)
    assert bench.read(chunk=chunk) == payloads


def test_the_file_is_opened_again_after_it_was_closed(bench: Bench) -> None:
    bench.append(b"one")
    bench.segment.close()
    bench.append(b"two")
    bench.segment.close()
    assert bench.read() == [b"one", b"two"]


# -- damage ------------------------------------------------------------------------------------------------------


def test_a_damaged_payload_costs_that_record(bench: Bench) -> None:
    _, second, third = bench.append(b"one", b"two", b"three")
    bench.change(lambda data: data.__setitem__(second - BASE + 32, 0))
    assert bench.read() == [b"one", b"three"]
    assert bench.damage == [(second, third - second, "wrong checksum")]


def test_a_damaged_header_costs_that_record(bench: Bench) -> None:
    _, second, third = bench.append(b"one", b"two", b"three")
    bench.change(lambda data: data.__setitem__(second - BASE + 12, 200))
    assert bench.read() == [b"one", b"three"]
    assert bench.damage == [(second, third - second, "no record header")]


def test_a_page_of_zeros_costs_what_was_on_it(bench: Bench) -> None:
    payloads = [b"%04d" % number * 25 for number in range(100)]
    positions = bench.append(*payloads)
    bench.change(lambda data: data.__setitem__(slice(4096, 8192), bytes(4096)))
    hit = [number for number, at in enumerate(positions) if at - BASE < 8192 and at - BASE + 132 > 4096]
    assert bench.read() == [payload for number, payload in enumerate(payloads) if number not in hit]
    assert sum(size for _, size, _ in bench.damage) == 132 * len(hit)


def test_the_next_record_is_found_across_chunks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search reads in steps; a header that lies on the border of two is found too."""
    monkeypatch.setattr("pynsqd.storage.segment._SCAN", 64)
    for size in range(64):
        bench.path.unlink(missing_ok=True)
        bench.open(0)
        _, last = bench.append(b"x" * size, b"last")
        bench.change(lambda data: data.__setitem__(32, 0))
        assert bench.read() == [b"last"]
        assert bench.damage.pop() == (FIRST, last - FIRST, "no record header")
        bench.segment.close()


def test_a_message_that_looks_like_a_record_is_none(bench: Bench) -> None:
    """What a client sends is never taken for a record, even where a damaged header has the reader search."""
    (first,) = bench.append(b"inner")
    inside = bench.path.read_bytes()[32:]
    outer, last = bench.append(b"before" + inside + b"behind", b"last")
    bench.change(lambda data: data.__setitem__(outer - BASE, 0))
    assert bench.read() == [b"inner", b"last"]
    assert bench.damage == [(outer, last - outer, "no record header")]
    assert first == FIRST


def test_a_file_that_became_shorter_is_damage(bench: Bench) -> None:
    _, second = bench.append(b"one", b"two")
    bench.change(lambda data: data.__delitem__(slice(-1, None)))
    assert bench.read() == [b"one"]
    assert bench.damage == [(second, 35, "wrong checksum")]


def test_a_file_that_is_gone_is_damage(bench: Bench) -> None:
    bench.append(b"one", b"two")
    bench.segment.close()
    bench.path.unlink()
    assert bench.read() == []
    assert bench.damage == [(BASE, 102, "the file is gone")]


def test_a_file_that_cannot_be_opened_now_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(b"one")
    bench.segment.close()
    failing = FailingFiles(monkeypatch)
    failing.fail("open_file", errno.EMFILE)
    with pytest.raises(StorageError, match=r"^open .*one.seg: too many open files$"):
        bench.read()
    failing.heal()
    assert bench.read() == [b"one"]
    assert bench.damage == []


def test_an_unreadable_block_costs_what_is_on_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = [b"%04d" % number * 25 for number in range(100)]
    positions = bench.append(*payloads)
    FailingFiles(monkeypatch).fail_reads(range(5000, 5001))
    hit = [number for number, at in enumerate(positions) if at - BASE < 8192 and at - BASE + 132 > 4096]
    assert bench.read() == [payload for number, payload in enumerate(payloads) if number not in hit]
    assert bench.segment.unreadable


def test_another_read_error_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(b"one")
    FailingFiles(monkeypatch).fail("pread", errno.EACCES)
    with pytest.raises(StorageError, match=r"^read .*one.seg: permission denied$"):
        bench.read()


# -- append that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", range(36))
def test_a_write_that_fails_half_way_is_taken_back(bench: Bench, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    bench.append(b"one")
    failing = FailingFiles(monkeypatch)
    failing.full_after(room)
    if room < 35:
        with pytest.raises(StorageError, match=r"^write .*one.seg: no space left on device$"):
            bench.append(b"two")
        assert bench.path.stat().st_size == bench.segment.size
        assert not bench.segment.sealed
    else:
        bench.append(b"two")
    failing.heal()
    bench.append(b"three")
    assert bench.read() == ([b"one", b"three"] if room < 35 else [b"one", b"two", b"three"])
    assert bench.damage == []


@pytest.mark.parametrize("room", [0, 1, 32, 66])
def test_a_first_write_that_fails_leaves_no_file(bench: Bench, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    failing = FailingFiles(monkeypatch)
    failing.full_after(room)
    with pytest.raises(StorageError):
        bench.append(b"one")
    assert not bench.path.exists()
    assert failing.calls["close"] == failing.calls["open_file"] == 1
    assert bench.segment.size == 0


def test_a_segment_is_sealed_if_the_write_cannot_be_taken_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(b"one")
    failing = FailingFiles(monkeypatch)
    failing.full_after(10)
    failing.fail("truncate")
    with pytest.raises(StorageError, match="no space"):
        bench.append(b"two")
    assert bench.segment.sealed
    assert bench.read() == [b"one"]


def test_a_segment_is_sealed_if_it_cannot_be_opened_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(b"one")
    bench.segment.close()
    FailingFiles(monkeypatch).fail("open_file", errno.EMFILE)
    with pytest.raises(StorageError, match=r"^open .*: too many open files$"):
        bench.append(b"two")
    assert bench.segment.sealed


# -- recover -----------------------------------------------------------------------------------------------------


def test_a_torn_append_is_cut_at_every_byte(bench: Bench) -> None:
    bench.append(b"one", b"two")
    whole = bench.path.read_bytes()
    second = 32 + 35
    for size in range(32, len(whole)):
        bench.segment.close()
        bench.path.write_bytes(whole[:size])
        segment = bench.open()
        segment.recover()
        kept = second if size >= second else 32
        assert segment.size == bench.path.stat().st_size == kept
        assert segment.end_sequence() == (1 if size >= second else 5)
        bench.append(b"more")
        assert bench.read() == ([b"one", b"more"] if size >= second else [b"more"])
    assert bench.damage == []


def test_what_was_appended_together_is_cut_together(bench: Bench) -> None:
    bench.append(b"one")
    bench.segment.stage(BATCH, 9, [(1, b"", b"first"), (2, b"sec", b"ond")])
    bench.segment.append(BATCH, 1, 12, b"last")
    whole = bench.path.read_bytes()
    for size in range(67, len(whole)):
        bench.segment.close()
        bench.path.write_bytes(whole[:size])
        segment = bench.open()
        segment.recover()
        assert segment.size == bench.path.stat().st_size == 67
        assert bench.read() == [b"one"]
    bench.segment.close()
    bench.path.write_bytes(whole)
    segment = bench.open()
    segment.recover()
    assert (segment.end_sequence(), bench.read()) == (13, [b"one", b"first", b"second", b"last"])
    assert bench.damage == []


def test_damage_to_the_last_of_what_was_appended_together_costs_no_others(bench: Bench) -> None:
    bench.segment.stage(BATCH, 9, [(1, b"", b"first"), (2, b"sec", b"ond")])
    bench.segment.append(BATCH, 1, 12, b"last")
    bench.change(lambda data: data.__setitem__(-36, 0))  # the magic of its record
    segment = bench.open()
    segment.recover()
    assert bench.read() == [b"first", b"second"]
    assert [why for _, _, why in bench.damage] == ["no record header"] * 2


def test_damage_at_the_end_is_not_cut(bench: Bench) -> None:
    for at, why in ((67, "no record header"), (67 + 33, "wrong checksum")):
        bench.segment.close()
        bench.path.unlink(missing_ok=True)
        bench.open(0)
        bench.append(b"one", b"two")
        bench.change(lambda data, at=at: data.__setitem__(at, 0))  # type: ignore[misc]
        segment = bench.open()
        segment.recover()
        assert segment.size == 102
        assert bench.damage.pop() == (BASE + 67, 35, why)
        bench.append(b"three")
        assert bench.read() == [b"one", b"three"]
        assert bench.damage.pop() == (BASE + 67, 35, why)


def test_zeros_at_the_end_are_damage(bench: Bench) -> None:
    """After a loss of power a file may be long enough and empty: that was acknowledged, so it is not cut silently."""
    bench.append(b"one")
    bench.change(lambda data: data.extend(bytes(5000)))
    segment = bench.open()
    segment.recover()
    assert bench.damage == [(BASE + 67, 5000, "no record header")]


def test_a_message_cannot_make_the_recovery_cut_it(bench: Bench) -> None:
    """The last record is searched from the end; a forged header in a body would be found before the real one."""
    position = FIRST + 32  # where the payload will be
    forged = Segment(
        bench.path.with_name("forged"), HEADER._replace(salt=SALT + 1), 0, bench.descriptors, lambda *_: None
    )
    forged.base = position - 32
    forged.append(BATCH, 1, 1 << 60, b"x" * 100)
    body = forged.path.read_bytes()[32:64]  # a valid header there, of a record that goes on behind the end
    forged.close()
    bench.append(body)
    segment = bench.open()
    segment.recover()
    assert bench.read() == [body]
    assert segment.end_sequence() == 1


def test_the_last_record_is_found_however_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynsqd.storage.segment._TAIL", 64)
    for size in (0, 20, 31, 32, 33, 63, 64, 65, 500, 5000, 70_000):
        bench.segment.close()
        bench.path.unlink(missing_ok=True)
        bench.open(0)
        first, last = bench.append(b"one", b"\xfb\xd1" * (size // 2))
        found = bench.segment.last_record()
        assert found is not None
        assert (found[0], found[1].length) == (last, size // 2 * 2)
        assert first == FIRST
    bench.segment.size = 32
    assert bench.segment.last_record() is None


def test_only_the_tail_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(*[b"x" * 10_000] * 300)
    segment = bench.open()
    failing = FailingFiles(monkeypatch)
    failing.fail_reads(range(segment.size - 70_000))
    segment.recover()
    assert bench.damage == []
    assert not segment.unreadable


def test_a_tail_that_cannot_be_cut_is_hidden(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(b"one", b"two")
    bench.change(lambda data: data.__delitem__(slice(-1, None)))
    segment = bench.open()
    FailingFiles(monkeypatch).fail("truncate")
    segment.recover()
    assert segment.sealed
    assert segment.size == 67


def test_end_sequence_counts_batches_only(bench: Bench) -> None:
    assert bench.segment.end_sequence() == 5  # of the header
    bench.segment.append(BATCH, 3, 5, b"x")
    assert bench.segment.end_sequence() == 8
    bench.segment.append(OWED, 3, 8, b"x")
    assert bench.segment.end_sequence() == 8


# -- sync --------------------------------------------------------------------------------------------------------


def test_sync_covers_what_was_appended_and_the_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFiles(monkeypatch)
    unsynced = Unsynced()
    for _ in range(3):
        bench.append(b"x")
        unsynced.add(bench.segment)
    unsynced.sync()
    assert (failing.calls["fdatasync"], failing.calls["fsync"]) == (1, 1)
    unsynced.sync()
    assert failing.calls["fdatasync"] == 1
    unsynced.add(bench.segment)
    unsynced.sync()
    assert (failing.calls["fdatasync"], failing.calls["fsync"]) == (2, 1)


def test_what_is_appended_during_a_sync_is_synced_by_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFiles(monkeypatch)
    unsynced = Unsynced()
    bench.append(b"x")
    unsynced.add(bench.segment)
    synced = []

    def appending(descriptor: int) -> None:
        synced.append(descriptor)
        unsynced.add(bench.segment)

    monkeypatch.setattr(files, "fdatasync", appending)
    unsynced.sync()
    assert len(synced) == 1
    failing.heal()
    unsynced.sync()
    assert failing.calls["fdatasync"] == 1


@pytest.mark.parametrize("name", ["fdatasync", "fsync"])
def test_a_failed_sync_is_never_made_good(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    failing = FailingFiles(monkeypatch)
    unsynced = Unsynced()
    bench.append(b"x")
    unsynced.add(bench.segment)
    failing.fail(name)
    with pytest.raises(StorageError, match=r"^sync .*one.seg: input/output error$"):
        unsynced.sync()
    assert bench.segment.sealed
    failing.heal()
    unsynced.sync()  # nothing was appended since
    unsynced.add(bench.segment)  # what was appended before anybody saw the failure
    with pytest.raises(StorageError, match=r"^sync .*one.seg: an earlier sync failed$"):
        unsynced.sync()


def test_one_failed_sync_does_not_keep_the_others_from_being_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = FailingFiles(monkeypatch)
    descriptors = Descriptors()
    unsynced = Unsynced()
    segments = [Segment(tmp_path / str(number), HEADER, 0, descriptors, lambda *_: None) for number in range(2)]
    for segment in segments:
        segment.append(BATCH, 1, 0, b"x")
        unsynced.add(segment)
    failing.fail("fdatasync", after=1)
    with pytest.raises(StorageError, match=r"1: input"):
        unsynced.sync()
    assert [segment.sync_failed for segment in segments] == [False, True]
    for segment in segments:
        segment.close()


def test_a_segment_that_was_removed_needs_no_sync(bench: Bench) -> None:
    unsynced = Unsynced()
    bench.append(b"x")
    unsynced.add(bench.segment)
    bench.path.unlink()
    unsynced.sync()
    assert not bench.segment.sealed


# -- the header --------------------------------------------------------------------------------------------------


def test_read_header(bench: Bench) -> None:
    bench.append(b"one")
    assert read_header(bench.path) == HEADER
    bench.change(lambda data: data.__setitem__(9, 0xFF))
    assert read_header(bench.path) is None


def test_read_header_refuses_a_later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynsqd.storage.format.VERSION", VERSION + 1)
    (tmp_path / "later").write_bytes(pack_segment_header(SALT, BASE, 5))
    with pytest.raises(StartupError, match=rf"/later is of version {VERSION + 1}, this is version {VERSION}$"):
        read_header(tmp_path / "later")


def test_read_header_of_a_file_that_cannot_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(b"one")
    failing = FailingFiles(monkeypatch)
    failing.fail("pread")
    assert read_header(bench.path) is None
    failing.fail("open_file", errno.EACCES)
    with pytest.raises(StorageError, match="permission denied"):
        read_header(bench.path)
