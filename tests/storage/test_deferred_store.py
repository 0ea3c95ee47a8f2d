"""The deferred messages of a topic, on disk."""

import errno
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pynsqd.core.batch import Batch
from pynsqd.core.log import DEFERRED_BIT, DeferredRecord, bucket_at, bucket_of, bucket_position
from pynsqd.storage import segment
from pynsqd.storage.deferred_store import DeferredStore
from pynsqd.storage.format import VERSION, pack_segment_header
from pynsqd.storage.log_store import LogStore
from pynsqd.wire.encoder import split_frames
from pynsqd.wire.errors import StartupError, StorageError
from tests.support.batches import WALL_NS, Batches
from tests.support.failing_files import FailingFiles

TOPIC = "orders"
BUCKET = bucket_of(WALL_NS)
NEXT_NS = 1 << 36  # from one bucket to the next
HEADER = 32  # bytes, of a file and of a record
PREFIX = 9  # due time and the length of the channel's name


class Bench:
    """A store that can be opened again, and what it reported."""

    def __init__(self, path: Path) -> None:
        self.batches = Batches()
        self.reports: list[tuple[str, str]] = []
        self.logs = LogStore(path, 1 << 20, lambda topic, text: self.reports.append((topic, text)))
        self.folder = path / "topics" / f"{TOPIC}.log" / "deferred"
        self.store = self.logs.open_deferred(TOPIC)
        self.kept: list[DeferredRecord] = []

    def reopen(self, known_serial: int = 0) -> DeferredStore:
        """Leave the store as a kill does and open it again."""
        self.store.close()
        self.store = self.logs.open_deferred(TOPIC, known_serial)
        return self.store

    def keep(self, channel: str = "", due_wall_ns: int = WALL_NS, count: int = 1, size: int = 20) -> DeferredRecord:
        batch = self.batches.new(count, size)
        serial = self.store.next_serial
        position = self.store.append(channel, due_wall_ns, batch.frames, count)
        self.kept.append(DeferredRecord(serial, channel, due_wall_ns, position, batch.ids, batch.frames))
        return self.kept[-1]

    def loaded(self, from_serial: int = 0) -> list[DeferredRecord]:
        buckets = self.store.buckets()
        return sorted((record for bucket in buckets for record in self.store.load(bucket, from_serial)), key=_serial)

    def path(self, bucket: int = BUCKET) -> Path:
        return self.folder / f"{bucket}.def"

    def bad(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder.parent / "bad").glob("*")}


def _serial(record: DeferredRecord) -> int:
    return record.serial


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()
    bench.logs.close()


def test_a_new_store_is_empty_and_touches_nothing(bench: Bench, tmp_path: Path) -> None:
    assert (bench.store.buckets(), bench.store.sizes(), bench.store.next_serial) == ([], {}, 0)
    assert list(bench.store.load(BUCKET)) == []
    assert bench.store.fetch(bucket_position(BUCKET), [b"x" * 16]) == {}
    bench.store.drop(BUCKET)
    bench.store.sync()
    assert os.listdir(tmp_path) == []


def test_what_is_kept_is_loaded(bench: Bench) -> None:
    first = bench.keep()
    second = bench.keep("worker", WALL_NS + 5, count=3)
    other = bench.keep("worker", WALL_NS + NEXT_NS)
    assert [first.serial, second.serial, other.serial, bench.store.next_serial] == [0, 1, 2, 3]
    assert first.position == bucket_position(BUCKET) + HEADER
    assert other.position == bucket_position(BUCKET + 1) + HEADER
    assert all(one.position & DEFERRED_BIT for one in bench.kept)
    assert [bucket_at(one.position) for one in bench.kept] == [BUCKET, BUCKET, BUCKET + 1]
    assert bench.store.buckets() == [BUCKET, BUCKET + 1]
    assert list(bench.store.load(BUCKET)) == [first, second]
    assert list(bench.store.load(BUCKET + 1)) == [other]
    assert bench.store.sizes() == {BUCKET: bench.path().stat().st_size, BUCKET + 1: 64 + PREFIX + 6 + 54}


def test_the_layout_is_the_documents(bench: Bench) -> None:
    record = bench.keep("worker", WALL_NS + 5)
    data = bench.path().read_bytes()
    assert data[:6] == b"pynsqd"
    assert data[HEADER + 2] == 3
    assert struct.unpack_from(">Q", data, HEADER + 16) == (record.serial,)
    assert data[2 * HEADER :] == struct.pack(">QB", WALL_NS + 5, 6) + b"worker" + record.frames


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "worker"]), st.integers(0, 5 * NEXT_NS), st.integers(1, 5), st.integers(0, 99)
        )
    )
)
def test_whatever_is_kept_is_there_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, many: list[tuple[str, int, int, int]]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("any"))
    for channel, later_ns, count, size in many:
        bench.keep(channel, WALL_NS + later_ns, count, size)
    for _ in range(2):
        assert bench.loaded() == bench.kept
        assert bench.store.next_serial == len(many)
        for record in bench.kept:
            frames = split_frames(record.frames)
            assert bench.store.fetch(record.position, record.ids) == dict(zip(record.ids, frames, strict=True))
        bench.reopen()
    bench.keep()
    assert bench.loaded() == bench.kept
    assert bench.reports == []
    bench.store.close()


def test_delays_of_centuries(bench: Bench) -> None:
    record = bench.keep("", WALL_NS + (1 << 63) - 1)
    assert bench.reopen().buckets() == [bucket_of(record.due_wall_ns)]
    assert bench.loaded() == [record]
    assert bucket_at(record.position) == bucket_of(record.due_wall_ns)


def test_load_gives_what_was_there_when_it_began(bench: Bench) -> None:
    for _ in range(3):
        bench.keep()
    loading = bench.store.load(BUCKET)
    first = next(loading)
    bench.keep()
    assert [first, *loading] == bench.kept[:3]


def test_load_passes_over_what_is_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        bench.keep(due_wall_ns=WALL_NS + number % 2 * NEXT_NS)
    bench.keep()
    assert list(bench.store.load(BUCKET, 4)) == [bench.kept[4], bench.kept[6]]
    bench.reopen()
    assert list(bench.store.load(BUCKET, 4)) == [bench.kept[4], bench.kept[6]]
    FailingFiles(monkeypatch).fail("pread", errno.EACCES)  # what has nothing to give is not read
    assert list(bench.store.load(BUCKET + 1, 6)) == []
    with pytest.raises(StorageError):
        list(bench.store.load(BUCKET + 1, 5))


@pytest.mark.parametrize("tail", [1, 100, 1000, 1 << 16])
def test_load_from_any_serial(bench: Bench, monkeypatch: pytest.MonkeyPatch, tail: int) -> None:
    monkeypatch.setattr(segment, "_TAIL", tail)
    for number in range(40):
        bench.keep("worker", WALL_NS + number % 3 // 2 * NEXT_NS, count=1 + number % 2, size=number * 7 % 90)
    for _ in range(2):
        for first in range(42):
            assert bench.loaded(first) == bench.kept[first:]
        bench.reopen()
    raw = bytearray(bench.path().read_bytes())
    place = raw.index(bench.kept[21].frames)
    raw[place - 20] ^= 1  # a header near the end
    bench.path().write_bytes(raw)
    bench.reopen()
    for first in range(40):
        assert bench.loaded(first) == [one for one in bench.kept[first:] if one.serial != 21]
    raw[30] ^= 1  # the header of the file, which may be read from the beginning only
    bench.path().write_bytes(raw)
    bench.reopen()
    for first in range(40):
        assert bench.loaded(first) == [one for one in bench.kept[first:] if one.serial != 21]


def test_load_of_what_is_not_due_yet(bench: Bench) -> None:
    for later in (5, 0, 7, 3):
        bench.keep(due_wall_ns=WALL_NS + later)
    assert list(bench.store.load(BUCKET, 0, WALL_NS + 3)) == [bench.kept[0], bench.kept[2]]
    assert list(bench.store.load(BUCKET, 1, WALL_NS + 3)) == [bench.kept[2]]
    assert list(bench.store.load(BUCKET, 0, 0)) == bench.kept


def test_little_is_read_of_a_large_bucket_for_its_last_ones(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        bench.keep(count=100, size=1000)
    last = [bench.keep() for _ in range(3)]
    disk = FailingFiles(monkeypatch)
    disk.fail_reads(range(1_000_000))
    assert list(bench.store.load(BUCKET, last[0].serial)) == last
    assert bench.reports == []


def test_fetch_takes_only_what_is_asked(bench: Bench) -> None:
    bench.keep(count=2)
    record = bench.keep("worker", count=3)
    frames = split_frames(record.frames)
    assert bench.store.fetch(record.position, record.ids[1:]) == dict(zip(record.ids[1:], frames[1:], strict=True))
    assert bench.store.fetch(record.position, [b"f" * 16, *bench.kept[0].ids]) == {}
    assert bench.store.fetch(bench.path().stat().st_size + bucket_position(BUCKET), record.ids) == {}


def test_serials_never_come_again(bench: Bench) -> None:
    """Not even if all that had them is gone: a channel that was emptied at serial 2 wants what comes after that."""
    bench.keep()
    bench.keep(due_wall_ns=WALL_NS + NEXT_NS)
    for bucket in bench.store.buckets():
        bench.store.drop(bucket)
    assert bench.store.next_serial == 2
    assert bench.reopen(2).next_serial == 2
    assert bench.keep().serial == 2
    assert bench.reopen(1).next_serial == 3


def test_an_empty_file_tells_the_serials_before_it(bench: Bench) -> None:
    bench.keep()
    bench.keep(due_wall_ns=WALL_NS + NEXT_NS)
    bench.store.drop(BUCKET)
    path = bench.path(BUCKET + 1)
    path.write_bytes(path.read_bytes()[:-1])  # torn
    assert bench.reopen().next_serial == 1


def test_first_serial_is_that_of_the_oldest_bucket(bench: Bench) -> None:
    assert bench.store.first_serial == 0
    for later in (0, 1, 0, 2):
        bench.keep(due_wall_ns=WALL_NS + later * NEXT_NS)
    for reopened in (False, True):
        if reopened:
            bench.reopen()
        assert bench.store.first_serial == 0
    bench.store.drop(BUCKET)
    assert bench.store.first_serial == 1
    bench.store.drop(BUCKET + 1)
    assert bench.store.first_serial == 3
    bench.store.drop(BUCKET + 2)
    assert bench.store.first_serial == bench.store.next_serial == 4


def test_a_dropped_bucket_is_removed(bench: Bench) -> None:
    bench.keep()
    kept = bench.keep(due_wall_ns=WALL_NS + NEXT_NS)
    bench.store.drop(BUCKET)
    assert bench.store.buckets() == [BUCKET + 1]
    assert os.listdir(bench.folder) == [bench.path(BUCKET + 1).name]
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [link for link in links if link.startswith(str(bench.path()))]
    assert bench.store.fetch(bench.kept[0].position, bench.kept[0].ids) == {}
    bench.reopen()
    assert bench.loaded() == [kept]


def test_a_bucket_that_cannot_be_removed_is_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keep()
    failing = FailingFiles(monkeypatch)
    failing.fail("rename")
    failing.fail("unlink")
    bench.store.drop(BUCKET)
    assert bench.reports == [(TOPIC, f"remove {bench.path()}: input/output error")]
    failing.heal()
    assert bench.reopen().buckets() == [BUCKET]
    bench.path().unlink()
    bench.store.drop(BUCKET)
    assert len(bench.reports) == 1


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynsqd.storage.descriptors._MOST_OPEN", 64)


def test_few_files_are_open(few_files: None, bench: Bench) -> None:
    for number in range(100):
        bench.keep(due_wall_ns=WALL_NS + number * NEXT_NS)
    for number in range(100):
        bench.keep(due_wall_ns=WALL_NS + number * NEXT_NS)
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert sum(str(bench.folder) in os.readlink(link) for link in links) == 64
    assert bench.loaded() == bench.kept


# -- damage ------------------------------------------------------------------------------------------------------


def test_a_torn_append_is_cut_at_every_byte(bench: Bench) -> None:
    kept = bench.keep("worker")
    begin = bench.path().stat().st_size
    bench.keep("worker", count=2)
    whole = bench.path().read_bytes()
    for size in range(begin, len(whole)):
        bench.path().write_bytes(whole[:size])
        store = bench.reopen()
        assert (store.next_serial, bench.path().stat().st_size) == (1, begin)
        later = bench.keep()
        assert bench.loaded() == [kept, later]
    assert bench.reports == []


def test_the_node_died_while_it_created_a_file(bench: Bench) -> None:
    bench.keep()
    whole = bench.path().read_bytes()
    for size in range(2 * HEADER):
        bench.path().write_bytes(whole[:size])
        bench.reopen()
        assert bench.path().exists() == (size >= HEADER)
        later = bench.keep()
        assert bench.loaded() == [later]
    assert bench.reports == []


def test_no_bit_that_flips_costs_more_than_its_record(bench: Bench) -> None:
    for channel, count in (("", 1), ("worker", 2), ("", 1)):
        bench.keep(channel, count=count, size=2)
    whole = bench.path().read_bytes()
    ends = [*[one.position for one in bench.kept[1:]], bucket_position(BUCKET) + len(whole)]
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        bench.path().write_bytes(data)
        bench.reports.clear()
        store = bench.reopen(3)
        at = bucket_position(BUCKET) + bit // 8
        left = [one for one, end in zip(bench.kept, ends, strict=True) if not one.position <= at < end]
        for _ in range(2):
            assert bench.loaded() == left
        assert len(bench.reports) == len(bench.bad()) == 1
        assert next(iter(bench.bad().values())) in bytes(data)
        assert store.next_serial == 3
        for path in (bench.folder.parent / "bad").iterdir():
            path.unlink()


def test_a_file_without_its_header_is_loaded_and_gets_a_successor(bench: Bench) -> None:
    bench.keep()
    bench.keep("worker")
    size = bench.path().stat().st_size
    bench.path().write_bytes(bytes(HEADER) + bench.path().read_bytes()[HEADER:])
    for _ in range(2):
        bench.reopen()
        bench.keep()
        assert bench.loaded() == bench.kept
    assert sorted(os.listdir(bench.folder)) == [f"{BUCKET}-{size}.def", f"{BUCKET}.def"]
    assert [one.serial for one in bench.kept] == [0, 1, 2, 3]
    assert sum(bench.store.sizes().values()) == sum(path.stat().st_size for path in bench.folder.iterdir())
    bench.store.drop(BUCKET)
    assert os.listdir(bench.folder) == []


def test_what_a_client_sends_is_no_serial(bench: Bench) -> None:
    """A body with a record in it, right for its place, after the file's header was lost."""
    body_at = bucket_position(BUCKET) + 2 * HEADER + PREFIX + 34
    head = struct.pack(">HBBIIIQI", 0xFBD1, 3, 0, 7, 1, 0, (1 << 64) - 1, 0)
    forged = head + struct.pack(">I", _crc32(head, body_at & 0xFFFFFFFF))
    batch = bench.batches.of([forged])
    bench.store.append("", WALL_NS, batch.frames, 1)
    bench.path().write_bytes(bytes(HEADER) + bench.path().read_bytes()[HEADER:])
    assert bench.reopen().next_serial == 1


def test_what_a_client_sends_is_no_place_to_read_from(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "_TAIL", HEADER + 4)
    first = bench.keep()
    body_at = first.position + HEADER + PREFIX + len(first.frames) + HEADER + PREFIX + 34
    head = struct.pack(">HBBIIIQI", 0xFBD1, 3, 0, 7, 1, 0, 0, 0)
    forged = head + struct.pack(">I", _crc32(head, body_at & 0xFFFFFFFF))
    batch = bench.batches.of([forged])
    bench.store.append("", WALL_NS, batch.frames, 1)
    bench.path().write_bytes(bytes(HEADER) + bench.path().read_bytes()[HEADER:])
    assert [record.frames for record in bench.reopen().load(BUCKET, 1)] == [batch.frames]


def _crc32(data: bytes, value: int) -> int:
    from zlib import crc32

    return crc32(data, value)


def test_damage_counts_with_that_of_the_log(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.keep()
    bench.keep()
    data = bench.path().read_bytes()
    bench.path().write_bytes(data[:-1] + b"?")
    log = bench.logs.open(TOPIC)
    bench.reopen(2)
    assert (log.damaged_records, log.damaged_bytes) == (1, (len(data) - HEADER) // 2)
    log.close()
    bench.store.close()


def test_a_file_the_disk_cannot_read_is_kept_when_it_is_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keep()
    data = bench.path().read_bytes()
    failing = FailingFiles(monkeypatch)
    failing.fail_reads(range(40, 41))
    assert bench.loaded() == []
    failing.heal()
    bench.store.drop(BUCKET)
    assert bench.bad()[bench.path().name] == data


def test_foreign_files_are_left_alone(bench: Bench) -> None:
    bench.keep()
    foreign = {
        "notes.txt": b"hello",
        f"{BUCKET}-x.def": b"x" * 50,
        "1234567890.def": b"x" * 50,
        f"{BUCKET + 1}.def": pack_segment_header(5, bucket_position(BUCKET), 3),
    }
    for name, content in foreign.items():
        (bench.folder / name).write_bytes(content)
    bench.reopen()
    assert sorted(text.split(" ")[0] for _, text in bench.reports) == sorted(
        str(bench.folder / name) for name in foreign
    )
    assert bench.loaded() == bench.kept
    for name, content in foreign.items():
        assert (bench.folder / name).read_bytes() == content


def test_a_later_version_is_refused_and_nothing_touched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keep()
    with monkeypatch.context() as later:
        later.setattr("pynsqd.storage.format.VERSION", VERSION + 1)
        header = pack_segment_header(1, bucket_position(BUCKET + 1), 0)
    bench.path().write_bytes(bench.path().read_bytes()[:-1])  # torn
    bench.path(BUCKET - 1).write_bytes(b"")
    bench.path(BUCKET + 1).write_bytes(header)
    before = {path: path.read_bytes() for path in bench.folder.iterdir()}
    with pytest.raises(
        StartupError, match=rf"{BUCKET + 1}.def is of version {VERSION + 1}, this is version {VERSION}$"
    ):
        bench.reopen()
    with pytest.raises(StartupError):
        bench.logs.check()
    assert {path: path.read_bytes() for path in bench.folder.iterdir()} == before


# -- a disk that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 31, 32, 70])
@pytest.mark.parametrize("new", [False, True])
def test_a_full_disk_takes_nothing_and_heals(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, room: int, new: bool
) -> None:
    bench.keep()
    due_wall_ns = WALL_NS + new * NEXT_NS
    batch = bench.batches.new()
    failing = FailingFiles(monkeypatch)
    failing.full_after(room)
    with pytest.raises(StorageError, match=r"^write .*\.def: no space left on device$"):
        bench.store.append("", due_wall_ns, batch.frames, 1)
    assert (bench.store.next_serial, bench.store.buckets()) == (1, [BUCKET])
    assert bench.loaded() == bench.kept
    failing.heal()
    bench.keep(due_wall_ns=due_wall_ns)
    for _ in range(2):
        assert bench.loaded() == bench.kept
        bench.reopen()
    assert bench.reports == []


def test_a_write_that_cannot_be_taken_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keep()
    size = bench.path().stat().st_size
    failing = FailingFiles(monkeypatch)
    failing.full_after(50)
    failing.fail("truncate")
    with pytest.raises(StorageError):
        bench.store.append("", WALL_NS, bench.batches.new().frames, 1)
    failing.heal()
    bench.keep()
    assert (bench.folder / f"{BUCKET}-{size}.def").exists()
    for _ in range(2):
        assert bench.loaded() == bench.kept
        bench.reopen()
    assert bench.reports == []


def test_a_bucket_goes_on_after_a_failed_sync(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keep()
    failing = FailingFiles(monkeypatch)
    failing.fail("fdatasync")
    with pytest.raises(StorageError, match=r"^sync .*\.def: input/output error$"):
        bench.store.sync()
    failing.heal()
    record = bench.keep()
    bench.store.sync()
    assert failing.calls["fdatasync"] == 1
    for _ in range(2):
        assert bench.loaded() == bench.kept
        assert bench.store.fetch(record.position, record.ids) == {record.ids[0]: record.frames}
        bench.reopen()


def test_a_folder_that_cannot_be_made(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "topics").write_bytes(b"")
    with pytest.raises(StorageError, match=r"^mkdir .*deferred: not a directory$"):
        bench.keep()
    (tmp_path / "topics").unlink()
    bench.keep()


def test_a_bucket_has_room_for_16_gib(bench: Bench) -> None:
    bench.keep()
    with bench.path().open("r+b") as file:
        file.truncate((1 << 34) - 10)
    bench.store._buckets[BUCKET][0].size = (1 << 34) - 10  # a sparse file, so that it need not be read
    last = bench.keep()
    assert bucket_at(last.position) == BUCKET
    with pytest.raises(StorageError, match=r"^write .*\.def: file too large$"):
        bench.keep()
    assert bench.store.next_serial == 2


def test_appends_go_on_beside_a_slow_sync(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFiles(monkeypatch)
    bench.keep()
    go_on = failing.hold("fdatasync")
    thread = threading.Thread(target=bench.store.sync)
    thread.start()
    bench.keep()
    bench.keep(due_wall_ns=WALL_NS + NEXT_NS)
    assert bench.loaded() == bench.kept
    go_on.set()
    thread.join()
    bench.store.sync()
    assert 2 <= failing.calls["fdatasync"] <= 3


def test_files_that_cannot_be_opened(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.keep()
    bench.store.close()
    failing = FailingFiles(monkeypatch)
    failing.fail("open_file", errno.EMFILE)
    for call in (
        lambda: list(bench.store.load(BUCKET)),
        lambda: bench.store.fetch(bench.kept[0].position, []),
        bench.reopen,
    ):
        with pytest.raises(StorageError, match=r"^open .*\.def: too many open files$"):
            call()
    monkeypatch.setattr("pynsqd.storage.files.list_folder", lambda _: (_ for _ in ()).throw(PermissionError(13, "No")))
    with pytest.raises(StorageError, match=r"^open .*deferred: no$"):
        bench.reopen()


def test_a_batch_may_be_deferred_as_it_is(bench: Bench) -> None:
    batch: Batch = bench.batches.new(3)
    bench.store.append("", WALL_NS, batch.frames, len(batch))
    (record,) = bench.store.load(BUCKET)
    assert (record.ids, record.frames) == (batch.ids, batch.frames)
