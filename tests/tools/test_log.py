"""log verify, repair and dump, on files as the storage writes them."""

import base64
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from pynsqd.cli import main
from pynsqd.core.batch import Batch
from pynsqd.storage.checkpoint import Checkpoint
from pynsqd.storage.dirlock import DirLock
from pynsqd.storage.format import checksum, pack_segment_header
from pynsqd.storage.log_store import LogStore
from pynsqd.storage.metadata import TopicMeta, save
from pynsqd.tools.progress import Progress
from pynsqd.wire.encoder import split_frames, with_attempts
from tests.support.batches import Batches, broken, record_size

TOPIC = "orders"
DUE_NS = 1_700_000_100_000_000_000


class DataPath:
    """A data path with one topic: six batches in several segments, one message owed, two deferred."""

    def __init__(self, folder: Path, max_bytes: int = 400) -> None:
        self.path = folder
        self.topic = folder / "topics" / f"{TOPIC}.log"
        self.batches = [Batches().of([b"body %d %d" % (group, number) for number in range(8)]) for group in range(6)]
        store = LogStore(folder, max_bytes, lambda *_: None)
        log = store.open(TOPIC)
        for batch in self.batches:
            log.append(batch)
        self.owed = with_attempts(split_frames(self.batches[0].frames)[3], 5)
        self.owed_at = log.append_owed("audit", self.owed, 1)
        log.close()
        deferred = store.open_deferred(TOPIC)
        deferred.append("", DUE_NS, self.batches[1].frames, 8)
        deferred.append("audit", DUE_NS + 1, self.owed, 1)
        deferred.close()
        save(folder, [TopicMeta(TOPIC, False, "log", ())])

    def segments(self) -> list[Path]:
        return sorted(self.topic.glob("*.seg"))

    def segment_of(self, batch: Batch) -> tuple[Path, int]:
        """Return the file of a batch and where in it its record begins."""
        path = next(path for path in reversed(self.segments()) if int(path.stem) <= batch.position)
        return path, batch.position - int(path.stem)

    def bytes(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.path)): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}

    def flip(self, path: Path, at: int) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x40]))

    def read(self) -> tuple[list[bytes], list[str]]:
        """Return what a node reads, and what it complains about."""
        complaints: list[str] = []
        log = LogStore(self.path, 1500, lambda _, text: complaints.append(text)).open(TOPIC)
        frames, position = [], 0
        while position < log.end:
            some, position, sequence = log.read(position, log.end, 100_000)
            frames += [frame for batch in some for frame in split_frames(batch.frames)]
        assert sequence == log.end_sequence
        list(log.owed_since(0))
        log.close()
        return frames, complaints


@pytest.fixture
def data(tmp_path: Path) -> DataPath:
    return DataPath(tmp_path)


@pytest.fixture
def one_file(tmp_path: Path) -> DataPath:
    return DataPath(tmp_path, 1 << 20)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["log", *map(str, words)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def report(capsys: pytest.CaptureFixture[str], verb: str, data: DataPath) -> tuple[int, dict[str, Any]]:
    code, out, _ = run(capsys, verb, data.path, "--json")
    whole = json.loads(out)
    assert whole["clean"] is (code == 0)
    return code, whole["topics"][0]


def test_verify_of_clean_files(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    before = data.bytes()
    code, topic = report(capsys, "verify", data)
    size = sum(path.stat().st_size for path in data.segments())
    assert code == 0
    assert (topic["segments"], topic["records"], topic["messages"], topic["bytes"]) == (len(before) - 2, 7, 48, size)
    assert (topic["owed_messages"], topic["deferred_messages"], topic["deferred_records"]) == (1, 9, 2)
    assert (topic["damage"], topic["notes"]) == ([], [])
    code, out, err = run(capsys, "verify", data.path, TOPIC)
    assert (code, err) == (0, "")
    assert out.startswith(f"orders: {len(data.segments())} segments, 7 records, 48 messages, {size} bytes; 1 messages")
    assert data.bytes() == before


def test_damage_is_found_set_aside_and_passed_over(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    lost = data.batches[2]
    path, at = data.segment_of(lost)
    data.flip(path, at + 50)
    damaged = data.bytes()
    code, topic = report(capsys, "verify", data)
    size = record_size(lost)
    expected = {"kind": "record", "file": str(path), "position": lost.position, "bytes": size}
    assert (code, topic["damage"]) == (1, [expected | {"reason": "wrong checksum"}])
    assert data.bytes() == damaged

    code, topic = report(capsys, "repair", data)
    assert code == 0
    assert "set aside as" in topic["damage"][0]["repaired"]
    assert (data.topic / "bad" / f"{lost.position:020d}.bad").read_bytes() == damaged[str(path.relative_to(data.path))][
        at : at + size
    ]
    frames, complaints = data.read()
    assert complaints == []
    assert frames == [one for batch in data.batches if batch is not lost for one in split_frames(batch.frames)]
    log = LogStore(data.path, 800, lambda *_: None).open(TOPIC)
    assert log.read(lost.position, lost.position, 0)[2] == 24, "the numbers go on behind the lost ones"
    log.close()
    assert report(capsys, "verify", data)[0] == 0
    repaired = data.bytes()
    assert report(capsys, "repair", data) == (0, report(capsys, "verify", data)[1])
    assert data.bytes() == repaired


@pytest.mark.parametrize("count", [1, 7, 9])
def test_a_record_with_other_messages_than_it_says(
    count: int, one_file: DataPath, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checksum is right, but the node cannot deliver it."""
    wrong, last = Batches().of([b"wrong"] * 8), Batches().of([b"last"])
    log = LogStore(one_file.path, 1 << 20, lambda *_: None).open(TOPIC)
    log.append(broken(wrong, count))
    log.append(last)
    log.close()
    code, topic = report(capsys, "verify", one_file)
    ((kind, position, size),) = [(one["kind"], one["position"], one["bytes"]) for one in topic["damage"]]
    assert (code, kind, size) == (1, "record", record_size(wrong))
    assert (topic["records"], topic["messages"], topic["owed_messages"]) == (8, 49, 1)
    code, out, err = run(capsys, "dump", one_file.path, TOPIC)
    assert (code, out.count("\n"), out.count("wrong")) == (1, 59, 0)
    assert f"{size} bytes at position {position} of" in err
    assert report(capsys, "repair", one_file)[0] == 0
    frames, complaints = one_file.read()
    assert (len(frames), complaints) == (49, [])
    assert report(capsys, "verify", one_file)[1]["damage"] == []


def test_every_byte_that_may_be_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a bit flips: it is found, at most one record goes, and after the repair the node finds nothing."""
    fresh = DataPath(tmp_path / "model", 1 << 20)
    (path,) = fresh.segments()
    content = fresh.bytes()
    places = [*range(0, 100, 3), *random.Random(1).sample(range(100, path.stat().st_size), 30)]
    for at in places:
        for name, raw in content.items():
            (fresh.path / name).write_bytes(raw)
        fresh.flip(path, at)
        assert run(capsys, "verify", fresh.path)[0] == 1, at
        assert run(capsys, "repair", fresh.path)[0] == 0, at
        frames, complaints = fresh.read()
        assert complaints == [], at
        lost = 0 if at < 32 or at >= fresh.owed_at else 8
        assert len(frames) == 48 - lost, at
        assert run(capsys, "verify", fresh.path)[0] == 0, at


@pytest.mark.parametrize("torn", [0, 1, 40, 200])
def test_an_mpub_that_is_not_there_to_its_end(
    torn: int, one_file: DataPath, capsys: pytest.CaptureFixture[str]
) -> None:
    """The node was killed while it came in; ``torn`` bytes of its last record are missing too."""
    (path,) = one_file.segments()
    size = path.stat().st_size
    batches = Batches()
    log = LogStore(one_file.path, 1 << 20, lambda *_: None).open(TOPIC)
    log.stage([batches.new(3, 100), batches.new(2, 100)])
    log._descriptors.close(log._segments[0])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - torn)
    written = path.stat().st_size
    assert written > size + 300
    code, topic = report(capsys, "verify", one_file)
    assert (topic["records"], topic["messages"]) == (7, 48)
    expected = {"kind": "tail", "file": str(path), "position": size, "bytes": written - size}
    assert (code, topic["damage"]) == (1, [expected | {"reason": "the MPUB is not there to its end"}])
    code, topic = report(capsys, "repair", one_file)
    assert (code, path.stat().st_size) == (0, size)
    assert report(capsys, "verify", one_file)[0] == 0
    assert len(one_file.read()[0]) == 48


def test_an_mpub_whose_end_is_damaged_keeps_the_rest(one_file: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    """As a start has it: what can be read is served."""
    (path,) = one_file.segments()
    batches = Batches()
    many = [batches.new(3, 100), batches.new(2, 100)]
    log = LogStore(one_file.path, 1 << 20, lambda *_: None).open(TOPIC)
    log.stage(many[:1])
    log.append(many[1])
    log.close()
    one_file.flip(path, many[1].position + 100)
    code, topic = report(capsys, "verify", one_file)
    assert (code, topic["records"], topic["messages"]) == (1, 8, 51)
    assert [(one["kind"], one["position"]) for one in topic["damage"]] == [("record", many[1].position)]
    assert report(capsys, "repair", one_file)[0] == 0
    frames, complaints = one_file.read()
    assert (len(frames), complaints) == (51, [])
    assert frames[48:] == split_frames(many[0].frames)


def test_a_torn_tail_is_cut_wherever_it_tears(one_file: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = one_file.segments()
    whole = path.read_bytes()
    for size in range(one_file.owed_at + 1, len(whole)):
        path.write_bytes(whole[:size])
        code, topic = report(capsys, "verify", one_file)
        assert (code, topic["damage"][0]["kind"], topic["damage"][0]["position"]) == (1, "tail", one_file.owed_at)
        assert report(capsys, "repair", one_file)[0] == 0
        assert path.read_bytes() == whole[: one_file.owed_at]
    assert len(list((one_file.topic / "bad").iterdir())) == len(whole) - one_file.owed_at - 1, "nothing is overwritten"


def test_damage_among_deferred(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (data.topic / "deferred").iterdir()
    data.flip(path, 100)
    assert report(capsys, "verify", data)[1]["damage"][0]["file"] == str(path)
    code, topic = report(capsys, "repair", data)
    assert (code, topic["deferred_messages"]) == (0, 1)
    complaints: list[str] = []
    store = LogStore(data.path, 1500, lambda _, text: complaints.append(text)).open_deferred(TOPIC)
    (bucket,) = store.buckets()
    nobody, last = store.load(bucket)
    assert (last.channel, last.frames, store.next_serial) == ("audit", data.owed, 2)
    assert nobody.channel.isspace()
    assert complaints == []
    store.close()


def test_an_empty_last_file_goes(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    path = data.topic / f"{10**6:020d}.seg"
    path.write_bytes(b"pynsqd")
    assert report(capsys, "verify", data)[1]["damage"][0]["kind"] == "stub"
    assert report(capsys, "repair", data)[0] == 0
    assert not path.exists()
    assert (data.topic / "bad" / f"{10**6:020d}.bad").read_bytes() == b"pynsqd"


def test_what_the_next_file_hides_is_no_damage(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    """An append that failed and could not be taken back: the next file begins where it did."""
    with data.segments()[0].open("ab") as file:
        file.write(b"\xfb\xd1" * 30)
    assert report(capsys, "verify", data)[0] == 0


def test_a_missing_file_is_reported_and_left(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    data.segments()[1].unlink()
    before = data.bytes()
    code, topic = report(capsys, "repair", data)
    assert (code, [one["kind"] for one in topic["damage"]]) == (1, ["missing"])
    assert topic["damage"][0]["repaired"].startswith("left")
    assert data.bytes() == before


def test_a_lost_end_that_the_checkpoint_knew(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Checkpoint(data.path)
    checkpoint.put(TOPIC, {"end": data.owed_at + 1000})
    checkpoint.write()
    checkpoint.close()
    code, topic = report(capsys, "verify", data)
    assert (code, topic["damage"][0]["reason"]) == (1, "the checkpoint knew of them")


@pytest.mark.parametrize(
    ("stop", "cursor", "owed", "lost"),
    [
        (None, 1000, [], None),
        ([1000, 8], 1000, [[1 << 62 | 5, b"", 2]], None),
        (None, 900, [], 900),
        ([800, 7], 1000, [], 800),
        (None, 1000, [[700, b"", 2]], 700),
    ],
)
def test_a_log_without_files(
    stop: list[int] | None,
    cursor: int,
    owed: list[list[Any]],
    lost: int | None,
    data: DataPath,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It may begin behind that of a deleted topic, or all of it was finished; then nothing is missing."""
    for path in data.segments():
        path.unlink()
    checkpoint = Checkpoint(data.path)
    channels = {"c": {"cursor": [cursor, 0], "owed": owed}}
    checkpoint.put(TOPIC, {"end": 1000, "stop": stop, "channels": channels})
    checkpoint.write()
    checkpoint.close()
    code, topic = report(capsys, "verify", data)
    found = [(one["position"], one["bytes"]) for one in topic["damage"]]
    assert (code, found) == ((0, []) if lost is None else (1, [(lost, 1000 - lost)]))


def test_a_file_of_a_later_release(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    head = bytearray(pack_segment_header(1, 0, 0))
    head[7] = 9
    head[28:] = checksum(bytes(head[:28])).to_bytes(4, "big")
    data.segments()[0].write_bytes(head)
    before = data.bytes()
    for verb in ("verify", "repair"):
        code, out, err = run(capsys, verb, data.path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "is of version 9" in err
    assert data.bytes() == before


def test_a_node_at_work(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    path = data.segments()[-1]
    with path.open("ab") as file:
        file.write(b"half")
    lock = DirLock(data.path)
    assert run(capsys, "repair", data.path) == (2, "", f"pynsqd log: {data.path} is in use by a node: stop it first\n")
    code, out, err = run(capsys, "verify", data.path)
    assert code == 0, out
    assert "is in use by a node" in err
    lock.release()
    assert run(capsys, "verify", data.path)[0] == 1


def test_damaged_checkpoint_and_metadata(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    (data.path / "pynsqd.checkpoint.0").write_bytes(b"x")
    code, out, _ = run(capsys, "verify", data.path)
    assert code == 1
    assert "checkpoint: damaged" in out
    (data.path / "pynsqd.checkpoint.0").unlink()
    (data.path / "pynsqd.meta").write_bytes(b"\xc1")
    code, out, _ = run(capsys, "verify", data.path)
    assert code == 1
    assert "metadata: damaged" in out


def test_dump(data: DataPath, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "dump", data.path, TOPIC, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, len(lines)) == (0, 48 + 1 + 9)
    first = data.batches[0]
    assert lines[0] == {
        "position": first.position,
        "id": first.ids[0].decode(),
        "timestamp_ns": 1_700_000_000_000_000_000,
        "attempts": 1,
        "body": base64.b64encode(b"body 0 0").decode(),
    }
    owed = lines[48]
    assert (owed["position"], owed["channel"], owed["attempts"]) == (data.owed_at, "audit", 5)
    assert [one["due_ns"] for one in lines[49:]] == [DUE_NS] * 8 + [DUE_NS + 1]
    assert ("channel" in lines[49], lines[-1]["channel"]) == (False, "audit")
    code, out, _ = run(capsys, "dump", data.path, TOPIC)
    plain = out.splitlines()
    assert plain[0] == f"{first.position} {first.ids[0].decode()} 1700000000000000000 attempts=1 body 0 0"
    assert plain[48].endswith("attempts=5 channel=audit body 0 3")


def test_dump_shows_any_body_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = LogStore(tmp_path, 1 << 20, lambda *_: None).open("t")
    log.append(Batches().of([b"a\nb", b"\xff" * 500, b"x" * 500]))
    log.close()
    _, out, _ = run(capsys, "dump", tmp_path, "t")
    first, second, third = out.splitlines()
    assert first.endswith("hex:610a62")
    assert second.endswith("ff… (500 bytes)")
    assert third.endswith("x… (500 bytes)")


@pytest.mark.parametrize(
    "words",
    [(), ("look",), ("verify",), ("dump", "."), ("verify", "/does/not/exist"), ("verify", ".", "no-such-topic")],
)
def test_a_wrong_call_is_one_line(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, *(str(tmp_path) if word == "." else word for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1)


class Terminal(io.StringIO):
    """What stderr is for a person."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("pynsqd.tools.progress._AFTER_S", 0)
    with Progress("reading", 2_000_000) as progress:
        progress.advance(1_000_000)
    assert ("reading [###############               ]  50% of 2 MB" in stream.getvalue()) is terminal
    assert os.linesep not in stream.getvalue()
