"""A V2 client that sends anything: decoder, session, topics and channels behind it, on logs in memory.

The first byte says how the rest is cut into reads.
"""

from collections.abc import Iterable

from tests.fuzz.dice import pieces
from tests.support.session_wire import OK, Client, Node, command, identify_command, mpub
from tests.support.wire import ERROR, MESSAGE, RESPONSE, Frame

_MAX_MSG = 64
_MAX_BODY = 512
_GOOD = b"the-good-one"
_FATAL = (b"E_INVALID", b"E_BAD_", b"E_SUB_FAILED", b"E_PUB_FAILED", b"E_MPUB_FAILED", b"E_DPUB_FAILED", b"E_AUTH")
_LIVES_ON = (b"E_FIN_FAILED", b"E_REQ_FAILED", b"E_TOUCH_FAILED")


def seeds() -> Iterable[bytes]:
    """Return a session of each kind."""
    ids = [message.id for message in _messages_of_a_consumer()]
    first, second = ids[:2]
    streams = [
        identify_command(client_id="a", heartbeat_interval=1000, msg_timeout=2000, sample_rate=3),
        identify_command(feature_negotiation=True, heartbeat_interval=-1, output_buffer_size=-1),
        command(b"PUB t", b"body") * 3 + mpub(b"t", [b"a", b"bb"]) + command(b"DPUB t 100", b"later") + b"NOP\n",
        b"SUB t c\nRDY 2\nFIN " + first + b"\nREQ " + second + b" 0\nTOUCH " + second + b"\nCLS\n",
        b"SUB t c\nRDY 9\n" + b"".join(b"FIN %s\n" % one for one in ids) + b"FIN " + first + b"\n",
        b"SUB t c\nRDY 1\nREQ " + first + b" 0\nREQ " + first + b" 0\nREQ " + first + b" 99999\nRDY 0\nRDY 5\n",
        b"SUB new#ephemeral c#ephemeral\nRDY 2500\n" + command(b"PUB new#ephemeral", b"x"),
        b"AUTH\n\0\0\0\3abcPUB t\r\n\xff\xff\xff\xffMPUB t\n\0\0\0\x0c\0\0\0\2\0\0\0\1a",
        b"PUB " + b"x" * 70 + b"\n",
    ]
    for size in (0, 1, 7):
        for stream in streams:
            yield bytes([size]) + b"  V2" + stream
    yield b"\0  V1PING\n"


def run(data: bytes) -> None:
    """Raise unless every frame is well-formed, the cut into reads makes no difference, and nobody else notices."""
    if not data:
        return
    size, stream = data[0], data[1:]
    reads = pieces(stream, size)
    whole = _in_one_turn([stream])
    if len(reads) > 1:
        assert _in_one_turn(reads) == whole, "it depends on how the bytes were cut"
    _in_many_turns(reads)


def _node() -> Node:
    node = Node(max_msg_size=_MAX_MSG, max_body_size=_MAX_BODY)
    node.consumer(0).drop()
    node.publish(b"one", b"two", b"three")
    return node


def _messages_of_a_consumer() -> list[object]:
    return list(_node().consumer(9).messages())  # type: ignore[arg-type]


def _in_one_turn(reads: list[bytes]) -> object:
    """Return all that can be seen of a client whose reads fall into one turn."""
    node = _node()
    client = node.client(b"")
    for read in reads:
        client.send(read)
        assert len(client.session.decoder) <= sum(map(len, reads))
    node.turn()
    frames = client.eof()
    _check(frames, client)
    return frames, client.closed, _stored(node), _owed(node)


def _in_many_turns(reads: list[bytes]) -> None:
    node = _node()
    good, publisher = node.consumer(9, topic=_GOOD), node.client()
    client = node.client(b"")
    good.answers = publisher.answers = True
    for number, read in enumerate(reads[:64]):
        client.send(read)
        node.turn()
        _check(client.take(), client)
        if number % 8 == 7:
            node.advance(s=13)
            assert publisher.ask(command(b"PUB " + _GOOD, b"%d" % number)) == [OK]
            (message,) = good.messages()
            assert message.body == b"%d" % number
            good.send(b"FIN " + message.id + b"\n")
    client.drop()
    node.turn()
    assert not good.take()
    assert not (good.closed or publisher.closed)
    assert set(node.broker.sessions) == {good.session, publisher.session}
    for topic in node.broker.topics.values():
        for channel in topic.channels.values():
            assert _GOOD.decode() == topic.name or not channel.consumers
    owed = _owed(node, ephemeral=False)
    node.stop()
    assert _owed(node, ephemeral=False) == owed, "it does not survive a restart"
    node.advance(s=4000)  # whatever was deferred is due


def _stored(node: Node) -> object:
    return {
        name: [(channel, batch.ids, batch.frames) for _, channel, batch, _ in node.broker.topics[name].log.records]  # type: ignore[union-attr]
        for name in node.broker.topics
        if node.broker.topics[name].log is not None
    }


def _owed(node: Node, *, ephemeral: bool = True) -> object:
    return {
        (topic.name, channel.name): channel.depth + len(channel.deferred) + channel.in_flight_count
        for topic in node.broker.topics.values()
        for channel in topic.channels.values()
        if ephemeral or not (channel.ephemeral or topic.ephemeral)
    }


def _check(frames: list[Frame], client: Client) -> None:
    """Fail unless each frame may be sent, and nothing follows a fatal error."""
    for number, frame in enumerate(frames):
        if frame.type == MESSAGE:
            assert 26 < len(frame.payload) <= 26 + _MAX_MSG, frame
        elif frame.type == ERROR:
            if frame.payload.startswith(_LIVES_ON):
                continue
            assert frame.payload.startswith(_FATAL) or frame.payload == b"E_IDENTIFY_FAILED", frame
            assert client.session.closing
            later = [one for one in frames[number + 1 :] if one.type != MESSAGE]
            assert not later, later
        else:
            assert frame.type == RESPONSE, frame
            assert frame.payload in (b"OK", b"CLOSE_WAIT", b"_heartbeat_") or frame.payload.startswith(b"{"), frame
