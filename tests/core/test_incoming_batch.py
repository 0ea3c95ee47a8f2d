"""MPUBs that come in pieces: published all or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core import incoming_batch, publishes
from pynsqd.storage.log_store import LogStore
from pynsqd.storage.topic_log import TopicLog
from pynsqd.wire.constants import MESSAGE_HEADER
from pynsqd.wire.encoder import split_frames
from pynsqd.wire.errors import StorageError
from tests.support.failing_files import FailingFiles
from tests.support.session_wire import OK, Client, FailingLogs, Node, command, error, mpub

READ = 1 << 16
BODIES = [b"%05d" % number + b"x" * 195 for number in range(2000)]


def _send_in_reads(client: Client, data: bytes, size: int = READ) -> None:
    """Send ``data`` in reads of ``size`` bytes, each with a turn of its own."""
    for at in range(0, len(data), size):
        client.send(data[at : at + size])
        client.node.turn()


@given(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=40),
    st.lists(st.integers(0, 2000), max_size=10),
    st.sampled_from([1, 3, 1000]),
)
def test_split_anywhere_it_is_one_mpub(bodies: list[bytes], cuts: list[int], room: int) -> None:
    node = Node(mem_queue_size=room)
    consumer = node.consumer(2500)
    client = node.client()
    stream = command(b"PUB t", b"before") + mpub(b"t", bodies) + command(b"PUB t", b"behind")
    bounds = [0, *sorted({cut % len(stream) for cut in cuts}), len(stream)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        client.send(stream[start:stop])
    node.turn()
    assert client.take() == [OK, OK, OK]
    messages = consumer.messages()
    assert [message.body for message in messages] == [b"before", *bodies, b"behind"]
    assert len({message.id for message in messages}) == len(messages)
    assert node.topic().message_count == len(messages)
    assert node.topic().message_bytes == sum(len(message.body) for message in messages)


def test_it_is_not_there_before_its_end() -> None:
    logs = FailingLogs()
    node = Node(logs)
    consumer = node.consumer(2500)
    client = node.client()
    stream = mpub(b"t", BODIES)
    _send_in_reads(client, stream[:-1])
    assert (client.take(), consumer.messages(), logs.appended()["t"]) == ([], [], [])
    node.clock.advance(s=3)
    node.publish(b"meanwhile")
    client.send(stream[-1:])
    node.turn()
    assert client.take() == [OK]
    messages = consumer.messages()
    assert [message.body for message in messages] == [b"meanwhile", *BODIES]
    ids = [message.id for message in messages]
    assert ids == sorted(ids)
    assert {message.timestamp_ns for message in messages} == {node.wall_ns}
    parts = logs.appended()["t"]
    assert sum(parts) == 1 + len(BODIES)
    assert 5 <= len(parts) <= 8  # of 64 KiB, or somewhat more


@pytest.mark.parametrize(("size", "most"), [(1, 15_000), (200, 360), (70_000, 1)])
def test_many_single_messages_are_cut_in_parts_too(size: int, most: int) -> None:
    logs = FailingLogs()
    node = Node(logs)
    bodies = [b"%d" % (number % 10) * size for number in range(max(4, 4_000_000 // (100 + size)))]
    client = node.client()
    client.send(b"".join(command(b"PUB t", body) for body in bodies))
    node.turn()
    assert client.take() == [OK] * len(bodies)
    parts = logs.appended()["t"]
    assert (sum(parts), max(parts) <= most) == (len(bodies), True)
    stored = [
        frame[MESSAGE_HEADER:] for _, _, batch, _ in logs.logs["t"].records for frame in split_frames(batch.frames)
    ]
    assert stored == bodies


def test_as_many_parts_as_one_write_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishes, "_PART", 1000)
    monkeypatch.setattr(publishes, "_MOST_PARTS", 16)
    monkeypatch.setattr(incoming_batch, "_LONG", 1 << 30)
    logs = FailingLogs()
    node = Node(logs)
    client = node.client()
    _send_in_reads(client, mpub(b"t", BODIES), 1000)
    assert client.take() == [OK]
    parts = logs.appended()["t"]
    assert len(parts) == 16
    assert max(parts) - min(parts[:-1]) < 10
    assert [message.body for message in node.consumer(2500).messages()] == BODIES


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (b"", "E_BAD_MESSAGE MPUB failed to read message(600) body size"),
        (b"\0\0\0\x02a", "E_BAD_MESSAGE MPUB failed to read message body"),
        (b"\0\0\0\0", "E_BAD_MESSAGE MPUB invalid message(600) body size 0"),
        (b"\x7f\xff\xff\xff", "E_BAD_MESSAGE MPUB message too big 2147483647 > 1048576"),
    ],
)
def test_what_is_wrong_with_a_late_message_is_said_of_its_number(end: bytes, text: str) -> None:
    client = Node().client()
    stream = mpub(b"t", BODIES)
    _send_in_reads(client, stream[: len(b"MPUB t\n") + 8 + 600 * 204] + end, 1000)
    assert (client.take() or client.eof()) == [error(text)]
    assert client.closed
    assert client.node.topic().depth == 0


def test_a_size_that_does_not_match_is_refused() -> None:
    client = Node().client()
    stream = mpub(b"t", BODIES[:400])
    size = int.from_bytes(stream[7:11], "big")
    _send_in_reads(client, stream[:7] + (size + 4).to_bytes(4, "big") + stream[11:] + b"NOP\n", 10_000)
    assert client.take() == [error(f"E_BAD_BODY MPUB body size {size + 4} does not match its messages")]
    assert client.node.topic().depth == 0


def test_what_was_not_stored_is_refused_whole_and_what_came_before_it_is_not() -> None:
    logs = FailingLogs()
    node = Node(logs)
    client = node.client()
    stream = mpub(b"t", BODIES)
    _send_in_reads(client, stream[:-1])
    logs.refuse_append("t", "no space left on device")
    client.send(stream[-1:])
    node.turn()
    assert client.take() == [error("E_MPUB_FAILED MPUB failed no space left on device")]
    assert client.closed
    assert node.topic().depth == 0
    logs.refuse_append("t", "")
    assert node.client().ask(mpub(b"t", BODIES[:1])) == [OK]


def test_a_draining_node_refuses_it() -> None:
    node = Node()
    client, other = node.client(), node.client()
    stream = mpub(b"t", BODIES)
    _send_in_reads(client, stream[:-1])
    other.send(command(b"PUB t", b"x"))
    client.send(stream[-1:])
    node.broker.draining = True
    node.turn()
    assert [frame.payload[:13] for frame in client.take() + other.take()] == [b"E_MPUB_FAILED", b"E_PUB_FAILED "]
    assert node.topic().depth == 0


@pytest.mark.parametrize("room", [1, 700, 1500, 10_000])
@pytest.mark.parametrize("durability", ["log", "memory"])
def test_a_channel_may_fall_behind_in_the_middle_of_it(room: int, durability: str) -> None:
    node = Node(mem_queue_size=room, durability=durability)
    node.broker.topic("t").channel("c")
    client = node.client()
    _send_in_reads(client, mpub(b"t", BODIES))
    assert client.take() == [OK]
    channel = node.channel()
    assert (channel.depth, channel.backend_depth) == (2000, max(0, 2000 - room))
    consumer = node.consumer(500)
    got = consumer.messages()
    assert channel.depth == 1500
    consumer.send(b"".join(b"FIN %s\n" % message.id for message in got))
    node.stop()
    assert node.channel().depth == 1500
    rest = [message.body for message in node.consumer(2500).messages()]
    assert [message.body for message in got] + rest == BODIES


def test_a_topic_deleted_meanwhile_is_made_again() -> None:
    node = Node()
    client = node.client()
    stream = mpub(b"t", BODIES)
    _send_in_reads(client, stream[:-1])
    node.broker.delete_topic("t")
    client.send(stream[-1:])
    node.turn()
    assert client.take() == [OK]
    assert node.topic().depth == 2000


def test_an_ephemeral_channel_keeps_what_fits() -> None:
    node = Node(mem_queue_size=1500)
    node.broker.topic("t").channel("c#ephemeral")
    _send_in_reads(node.client(), mpub(b"t", BODIES))
    assert node.channel("c#ephemeral").depth == 1500


# -- staged while they come in -----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node with real files, and long MPUBs that are not so long."""
    monkeypatch.setattr(incoming_batch, "_LONG", 10_000)
    monkeypatch.setattr(incoming_batch, "_STAGED_AT_ONCE", 4000)
    monkeypatch.setattr(publishes, "_PART", 4000)
    node = Node(LogStore(tmp_path, 100_000, lambda *_: None))
    yield node
    for name in list(node.broker.topics):
        node.broker.delete_topic(name)


def _file_size(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in tmp_path.rglob("*.seg"))


def _log(node: Node) -> TopicLog:
    log = node.topic().log
    assert isinstance(log, TopicLog)
    return log


STREAM = mpub(b"t", BODIES[:200])  # 40 KB


def _bodies(client: Client) -> list[bytes]:
    return [message.body for message in client.messages()]


def test_a_long_mpub_is_written_as_it_comes_and_read_by_nobody_before_its_end(disk: Node, tmp_path: Path) -> None:
    disk.publish(b"before")
    consumer = disk.consumer(2500)
    client = disk.client()
    size = _file_size(tmp_path)
    _send_in_reads(client, STREAM[:-1], 3000)
    assert _file_size(tmp_path) > size + 30_000
    assert (_bodies(consumer), disk.topic().depth, disk.topic().message_count) == ([b"before"], 0, 1)
    assert _log(disk).end == size
    before = _file_size(tmp_path)
    client.send(STREAM[-1:])
    disk.turn()
    assert client.take() == [OK]
    assert _file_size(tmp_path) - before < 10_000
    assert _log(disk).end == _file_size(tmp_path)
    messages = consumer.messages()
    assert [message.body for message in messages] == BODIES[:200]
    assert [message.id for message in messages] == sorted({message.id for message in messages})
    assert (disk.topic().message_count, disk.topic().message_bytes) == (201, 6 + 200 * 200)


def test_a_kill_leaves_all_or_nothing_of_it(disk: Node, tmp_path: Path) -> None:
    disk.publish(b"before")
    client = disk.client()
    states = []
    for at in range(0, len(STREAM), 3000):
        client.send(STREAM[at : at + 3000])
        states.append({path: path.read_bytes() for path in tmp_path.rglob("*.seg")})
        disk.turn()
        states.append({path: path.read_bytes() for path in tmp_path.rglob("*.seg")})
    assert client.take() == [OK]
    assert len({tuple(map(len, state.values())) for state in states}) > 5
    for number, state in enumerate(states):
        for path, data in state.items():
            path.write_bytes(data)
        log = LogStore(tmp_path, 100_000, lambda _, text: pytest.fail(text)).open("t")
        assert log.end_sequence == (201 if number == len(states) - 1 else 1)
        assert log.damaged_records == 0
        log.close()


@pytest.mark.parametrize("what", ["PUB", "MPUB", "REQ", "empty turn"])
def test_what_else_is_appended_meanwhile_goes_before_it(what: str, disk: Node, tmp_path: Path) -> None:
    disk.publish(b"before")
    consumer = disk.consumer(1)
    (first,) = consumer.messages()
    client, other = disk.client(), disk.client()
    _send_in_reads(client, STREAM[:20_000], 3000)
    size = _file_size(tmp_path)
    if what == "PUB":
        other.send(command(b"PUB t", b"other"))
    elif what == "MPUB":
        _send_in_reads(other, STREAM, 3000)
    elif what == "REQ":
        consumer.send(b"REQ " + first.id + b" 0\n")
    disk.turn()
    if what in ("PUB", "REQ"):
        assert _file_size(tmp_path) < size
    _send_in_reads(client, STREAM[20_000:], 3000)
    assert (client.take(), _log(disk).end) == ([OK], _file_size(tmp_path))
    consumer.send(b"RDY 2500\n")
    disk.turn()
    others = {"PUB": [b"other"], "MPUB": BODIES[:200], "REQ": [b"before"]}.get(what, [])
    assert other.take() == ([OK] if what in ("PUB", "MPUB") else [])
    got = _bodies(consumer)
    assert sorted(got) == sorted(others + BODIES[:200])
    assert [body for body in got if body in BODIES] == BODIES[:200] * (2 if what == "MPUB" else 1)
    disk.stop()
    assert disk.channel().depth == 201 + {"PUB": 1, "MPUB": 200}.get(what, 0)


def test_in_one_turn_with_its_end_what_came_first_is_first(disk: Node) -> None:
    client, other = disk.client(), disk.client()
    _send_in_reads(client, STREAM[:-1], 3000)
    other.send(command(b"PUB t", b"other"))
    client.send(STREAM[-1:] + command(b"PUB t", b"behind"))
    disk.turn()
    assert (client.take(), other.take()) == ([OK, OK], [OK])
    assert _bodies(disk.consumer(2500)) == [b"other", *BODIES[:200], b"behind"]


@pytest.mark.parametrize("end", ["closed", "bad", "topic deleted", "draining", "node stopped"])
def test_what_will_never_be_whole_is_taken_back(end: str, disk: Node, tmp_path: Path) -> None:
    disk.publish(b"before")
    size = _file_size(tmp_path)
    client = disk.client()
    _send_in_reads(client, STREAM[:20_000], 3000)
    assert _file_size(tmp_path) > size + 10_000
    if end == "closed":
        client.session.closed()
    elif end == "bad":
        client.send(b"\xff" * 3000)
        disk.turn()
        assert client.take()[0].payload.startswith(b"E_BAD_MESSAGE")
        client.session.closed()
    elif end == "topic deleted":
        disk.broker.delete_topic("t")
        disk.broker.topic("t")
        client.send(STREAM[20_000:])
        disk.turn()
        assert client.take() == [OK]
        assert _bodies(disk.consumer(2500)) == BODIES[:200]
        return
    elif end == "node stopped":
        _log(disk).close()
    else:
        disk.broker.draining = True
        client.send(STREAM[20_000:])
        disk.turn()
        assert client.take()[0].payload.startswith(b"E_MPUB_FAILED")
        disk.stop()
    disk.turn()
    assert _file_size(tmp_path) == size
    assert disk.topic().depth == 1


@pytest.mark.parametrize("heals", [True, False])
def test_a_disk_that_is_full_meanwhile(
    heals: bool, disk: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.publish(b"before")
    size = _file_size(tmp_path)
    client = disk.client()
    _send_in_reads(client, STREAM[:10_000], 3000)
    failing = FailingFiles(monkeypatch)
    failing.full_after(100)
    _send_in_reads(client, STREAM[10_000:30_000], 3000)
    assert (client.take(), _file_size(tmp_path)) == ([], size)
    if heals:
        failing.heal()
    _send_in_reads(client, STREAM[30_000:], 3000)
    if heals:
        assert client.take() == [OK]
    else:
        (refusal,) = client.take()
        assert refusal.payload.startswith(b"E_MPUB_FAILED MPUB failed write ")
        failing.heal()
    disk.publish(b"behind")
    assert _bodies(disk.consumer(2500)) == [b"before", *(BODIES[:200] if heals else []), b"behind"]


def test_its_file_may_be_full_meanwhile_or_fail_to_sync(disk: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    client = disk.client()
    for number in range(5):  # 100 KB a file
        _send_in_reads(client, STREAM[:20_000], 3000)
        if number == 1:
            failing = FailingFiles(monkeypatch)
            failing.fail("fdatasync")
            with pytest.raises(StorageError):
                _log(disk).sync()
            failing.heal()
        _send_in_reads(client, STREAM[20_000:], 3000)
        assert client.take() == [OK]
    assert len(_log(disk).live_segments()) >= 3
    assert _bodies(disk.consumer(2500)) == BODIES[:200] * 5
    disk.stop()
    assert disk.channel().depth == 1000
    assert _bodies(disk.consumer(2500)) == BODIES[:200] * 5


@pytest.mark.parametrize("durability", ["memory", "fsync"])
def test_with_another_durability(durability: str, disk: Node, tmp_path: Path) -> None:
    disk.broker.topic("t").channel("c")
    client = disk.client()
    _send_in_reads(client, STREAM[:20_000], 3000)
    disk.topic().set_durability(durability)
    disk.turn()
    _send_in_reads(client, STREAM[20_000:], 3000)
    if durability == "fsync":
        assert client.take() == []
        disk.fsync()
    assert (client.take(), _log(disk).end) == ([OK], _file_size(tmp_path))
    assert _bodies(disk.consumer(2500)) == BODIES[:200]


def test_files_that_nobody_needs_go_without_it(disk: Node, tmp_path: Path) -> None:
    consumer = disk.consumer(2500)
    publisher, client = disk.client(), disk.client()
    publisher.ask(mpub(b"t", BODIES[400:800]))
    _send_in_reads(client, STREAM[:-1], 3000)
    consumer.send(b"".join(b"FIN %s\n" % message.id for message in consumer.messages()))
    disk.turn()
    _log(disk).release(_log(disk).end)
    client.send(STREAM[-1:])
    disk.turn()
    assert client.take() == [OK]
    assert _bodies(consumer) == BODIES[:200]
    disk.kill()
    assert set(_bodies(disk.consumer(2500))) >= set(BODIES[:200])
