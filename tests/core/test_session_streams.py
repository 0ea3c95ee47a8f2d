"""The same bytes give the same answers, however they are cut; and no bytes at all bring a session down."""

import struct
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.session_wire import Node, command, mpub
from tests.support.wire import Frame

ID = b"0123456789abcdef"
SHORT = st.binary(min_size=1, max_size=12)
TOPICS = st.sampled_from([b"t", b"u", b"v#ephemeral"])

LIVING = st.one_of(
    st.sampled_from([b"NOP\n", b"NOP\r\n", b"FIN " + ID + b"\n", b"TOUCH " + ID + b"\n", b"REQ " + ID + b" 5\n"]),
    st.builds(lambda count: b"RDY %d\n" % count, st.integers(0, 20)),
    st.builds(lambda count: (b"FIN " + ID + b"\n") * count, st.integers(1, 30)),
    st.builds(lambda topic, body: command(b"PUB " + topic, body), TOPICS, SHORT),
    st.builds(lambda topic, ms, body: command(b"DPUB %b %d" % (topic, ms), body), TOPICS, st.integers(0, 50), SHORT),
    st.builds(mpub, TOPICS, st.lists(SHORT, min_size=1, max_size=5)),
)
FATAL = st.sampled_from(
    [
        b"FOO\n",
        b"SUB t c\n",
        b"PUB /\n",
        b"FIN short\n",
        b"FIN " + ID[:15] + b"\r\n",
        b"RDY x\n",
        b"PUB t\n\0\0\0\0",
        b"PUB t\n\xff\xff\xff\xff",
        b"MPUB t\n\0\0\0\x09\0\0\0\x02\0\0\0\x01a",
        b"MPUB t\n\0\0\0\x0e\0\0\0\x01\0\0\0\x01ab",
        b"AUTH\n\0\0\0\x01x",
        b"x" * 16384,
    ]
)
UNFINISHED = st.sampled_from(
    [b"", b"NO", b"PUB t\n", b"PUB t\n\0\0", b"MPUB t\n\0\0\0\x20\0\0\0\x02\0\0\0\x02ab\0", b"FIN 01"]
)


def _run(stream: bytes, cuts: list[int], *, turn_at_cuts: bool) -> dict[str, Any]:
    """Feed ``stream`` cut like that, then the end; return all that a client or an operator can see of it."""
    node = Node()
    node.consumer(0, channel=b"other")
    client = node.client()
    bounds = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if start < stop:
            client.send(stream[start:stop])
        if turn_at_cuts:
            node.turn()
    node.turn()
    rdy = client.session.consumer.rdy if client.session.consumer else -1
    held = node.channel().in_flight_count if "c" in node.topic().channels else -1
    frames = client.take()
    seen = {
        "state": client.session.state,
        "closed": client.closed,
        "rdy": rdy,
        "replies": [frame for frame in frames if frame.type != 2],
        "topics": {
            name: (topic.message_count, topic.message_bytes, {one: _total(node, name, one) for one in topic.channels})
            for name, topic in node.broker.topics.items()
        },
    }
    assert held <= sum(frame.type == 2 for frame in frames)
    seen["end"] = [frame for frame in client.eof() if frame.type != 2]
    return seen


def _total(node: Node, topic: str, name: str) -> int:
    channel = node.channel(name, topic)
    assert channel.message_count == channel.depth + channel.in_flight_count + len(channel.deferred)
    return channel.message_count


@given(
    st.lists(LIVING, max_size=12),
    st.booleans(),
    st.lists(LIVING, max_size=12),
    st.none() | FATAL,
    UNFINISHED,
    st.lists(st.integers(0, 3000), max_size=12),
)
@example([command(b"PUB t", b"x" * 200)], True, [b"NOP\n", command(b"PUB t", b"y")], None, b"", [7, 11, 217])
def test_cut_anywhere(
    before: list[bytes], subscribes: bool, after: list[bytes], fatal: bytes | None, rest: bytes, cuts: list[int]
) -> None:
    if not subscribes:
        before = [one for one in before if one[:3] in (b"NOP", b"PUB", b"MPU", b"DPU")]
        after = [one for one in after if one[:3] in (b"NOP", b"PUB", b"MPU", b"DPU")]
        fatal = None if fatal == b"SUB t c\n" else fatal
    parts = [b"SUB t c\nRDY 3\n", *before] if subscribes else before
    stream = b"".join([*parts, *after, fatal or b"", rest])
    whole = _run(stream, [], turn_at_cuts=False)
    assert whole["closed"] == (fatal is not None)
    assert _run(stream, cuts, turn_at_cuts=False) == whole
    assert _run(stream, cuts, turn_at_cuts=True) == whole
    if len(stream) < 600:
        assert _run(stream, list(range(len(stream))), turn_at_cuts=True) == whole


PIECES = st.one_of(
    st.binary(max_size=40),
    LIVING,
    FATAL,
    st.sampled_from(
        [b"  V2", b"IDENTIFY\n", b"SUB t c\n", b"CLS\n", b"AUTH\n", b"PUB t\n", b"MPUB t\n", b"DPUB t 1\n", b" ", b"\n"]
    ),
    st.integers(-(2**31), 2**31 - 1).map(lambda number: struct.pack(">i", number)),
    st.integers(0, 40).map(lambda number: struct.pack(">i", number)),
    st.sampled_from([b"PUB ", b"SUB ", b"FIN ", b"RDY ", b"REQ "]).flatmap(
        lambda verb: st.binary(max_size=30).map(lambda raw: verb + raw + b"\n")
    ),
    st.binary(max_size=60).map(lambda raw: command(b"IDENTIFY", raw) if raw else b""),
)


@settings(max_examples=300)
@given(st.booleans(), st.lists(PIECES, max_size=15), st.integers(0, 4))
def test_noise_is_answered_by_the_protocols_errors_only(magic: bool, pieces: list[bytes], seconds: int) -> None:
    node = Node()
    bystander = node.consumer(5, channel=b"bystander", heartbeat_interval=60_000)
    client = node.client(magic=b"  V2" if magic else b"")
    for piece in pieces:
        client.send(piece)
        node.advance(s=seconds)
    client.eof()
    node.turn()
    assert client.closed
    assert client.session not in node.broker.sessions
    if node.now_ns < 60 * 10**9:
        assert not bystander.closed
        assert all(frame.type == 2 for frame in bystander.take())


@settings(max_examples=300)
@given(st.booleans(), st.lists(PIECES, max_size=15))
def test_every_frame_of_an_answer_to_noise_is_well_formed(magic: bool, pieces: list[bytes]) -> None:
    client = Node().client(magic=b"  V2" if magic else b"")
    frames: list[Frame] = []
    for piece in pieces:
        frames += client.ask(piece)
    errors = [frame.payload for frame in frames if frame.type == 1]
    assert all(text.startswith(b"E_") for text in errors)
    fatal = [text for text in errors if not text.startswith((b"E_FIN_FAILED ", b"E_REQ_FAILED ", b"E_TOUCH_FAILED "))]
    assert len(fatal) <= 1
    assert bool(fatal) <= client.closed
    if fatal:
        assert frames[-1].payload == fatal[0] or frames[-1].type == 2
    else:
        assert client.closed == any(b"x" * 16384 in piece for piece in pieces) or len(b"".join(pieces)) > 16384
