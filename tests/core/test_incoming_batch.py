"""MPUBs that come in pieces: published all or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core import topic
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
    assert 6 <= len(parts) <= 8  # of 64 KiB, or a little more


def test_as_many_parts_as_one_write_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "_PART", 1000)
    monkeypatch.setattr(topic, "_MOST_PARTS", 16)
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
