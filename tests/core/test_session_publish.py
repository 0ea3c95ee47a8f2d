"""PUB, MPUB and DPUB: every row of PROTOCOL 1.4, what is published, and what happens when the log refuses."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.session_wire import MS, OK, FailingLogs, Node, command, error, mpub, sized

LONG = b"a" * 65


def _batch(declared: int, count: int, *messages: bytes) -> bytes:
    return struct.pack(">ii", declared, count) + b"".join(messages)


def _node(**options: int) -> Node:
    return Node(**({"max_msg_size": 100, "max_body_size": 1000} | options))


# -- rows of 1.4 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [b"PUB", b"DPUB"])
@pytest.mark.parametrize(
    ("params", "text"),
    [
        (b"", "E_INVALID {verb} insufficient number of parameters"),
        (b" ", 'E_BAD_TOPIC {verb} topic name "" is not valid'),
        (b" a/b", 'E_BAD_TOPIC {verb} topic name "a/b" is not valid'),
        (b' a\\"\xff\xc3\xa9', 'E_BAD_TOPIC {verb} topic name "a\\\\\\"\\xffé" is not valid'),
        (b" " + LONG, f'E_BAD_TOPIC {{verb}} topic name "{LONG.decode()}" is not valid'),
        (b" t\t", 'E_BAD_TOPIC {verb} topic name "t\\t" is not valid'),
    ],
)
def test_params(verb: bytes, params: bytes, text: str) -> None:
    client = Node().client()
    delay = b" 1" if verb == b"DPUB" and params else b""
    assert client.ask(verb + params + delay + b"\n" + sized(b"x")) == [error(text.format(verb=verb.decode()))]
    assert client.closed
    assert client.node.broker.topics == {}


@pytest.mark.parametrize("line", [b"DPUB t", b"DPUB /"])
def test_dpub_counts_its_parameters_before_it_looks_at_them(line: bytes) -> None:
    assert Node().client().ask(line + b"\n") == [error("E_INVALID DPUB insufficient number of parameters")]


@pytest.mark.parametrize(
    ("timeout", "text"),
    [
        (b"x", "E_INVALID DPUB could not parse timeout x"),
        (b"-1", "E_INVALID DPUB could not parse timeout -1"),
        (b"1.0", "E_INVALID DPUB could not parse timeout 1.0"),
        (b"1\xff", b"E_INVALID DPUB could not parse timeout 1\xff"),
        (b"3600001", "E_INVALID DPUB timeout 3600001 out of range 0-3600000"),
        (b"9223372036855", "E_INVALID DPUB timeout 9223372036855 out of range 0-3600000"),
        (b"18446744073709551615", "E_INVALID DPUB timeout 18446744073709551615 out of range 0-3600000"),
        (b"18446744073713151617", "E_INVALID DPUB timeout 3600001 out of range 0-3600000"),
    ],
)
def test_dpub_timeout(timeout: bytes, text: str | bytes) -> None:
    client = Node().client()
    assert client.ask(b"DPUB t " + timeout + b"\n" + sized(b"x")) == [error(text)]
    assert client.closed
    assert client.node.broker.topics == {}


def test_the_topic_name_is_looked_at_before_the_timeout() -> None:
    assert Node().client().ask(b"DPUB / x\n") == [error('E_BAD_TOPIC DPUB topic name "/" is not valid')]


@pytest.mark.parametrize(
    ("timeout", "delay_ns"),
    [
        (b"", 0),
        (b"0", 0),
        (b"1", MS),
        (b"3600000", 3_600_000 * MS),
        (b"18446744073710", 448_384),  # wraps into the range and is accepted
    ],
)
def test_dpub_timeouts_in_range(timeout: bytes, delay_ns: int) -> None:
    node = Node()
    consumer = node.consumer(1)
    consumer.answers = True
    assert node.client().ask(b"DPUB t " + timeout + b"\n" + sized(b"x")) == [OK]
    if delay_ns:
        node.advance(ns=delay_ns - 1)
        assert consumer.take() == []
        node.advance(ns=1)
    assert consumer.bodies() == [b"x"]


@pytest.mark.parametrize(("verb", "line"), [("PUB", b"PUB t\n"), ("DPUB", b"DPUB t 1\n")])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\0\0\0\0", "invalid message body size 0"),
        (b"\xff\xff\xff\xff", "invalid message body size -1"),
        (b"\x80\0\0\0", "invalid message body size -2147483648"),
        (b"\0\0\0\x65", "message too big 101 > 100"),
        (b"\x7f\xff\xff\xff", "message too big 2147483647 > 100"),
    ],
)
def test_sizes(verb: str, line: bytes, body: bytes, text: str) -> None:
    client = _node().client()
    assert client.ask(line + body) == [error(f"E_BAD_MESSAGE {verb} {text}")]
    assert client.closed
    assert client.node.broker.topics == {}
    assert client.node.client().ask(line + sized(b"x" * 100)) == [OK]


@pytest.mark.parametrize(("verb", "line"), [("PUB", b"PUB t\n"), ("DPUB", b"DPUB t 1\n")])
@pytest.mark.parametrize(
    ("part", "what"),
    [(b"", "body size"), (b"\0\0\0", "body size"), (b"\0\0\0\x02", "body"), (b"\0\0\0\x02a", "body")],
)
def test_cut_short(verb: str, line: bytes, part: bytes, what: str) -> None:
    client = Node().client()
    client.send(line + part)
    assert client.eof() == [error(f"E_BAD_MESSAGE {verb} failed to read message {what}")]
    assert client.closed
    assert client.node.broker.topics == {}


@pytest.mark.parametrize(
    ("params", "text", "created"),
    [
        (b"", "E_INVALID MPUB insufficient number of parameters", set()),
        (b" ", 'E_BAD_TOPIC E_BAD_TOPIC MPUB topic name "" is not valid', set()),
        (b" \xff", 'E_BAD_TOPIC E_BAD_TOPIC MPUB topic name "\\xff" is not valid', set()),
        (b" a b", "E_BAD_BODY MPUB invalid body size 0", {"a"}),  # the topic is there before the body is read
    ],
)
def test_mpub_params(params: bytes, text: str, created: set[str]) -> None:
    client = Node().client()
    assert client.ask(b"MPUB" + params + b"\n\0\0\0\0") == [error(text)]
    assert client.closed
    assert set(client.node.broker.topics) == created


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\0\0\0\0", "E_BAD_BODY MPUB invalid body size 0"),
        (b"\xff\xff\xff\xfe", "E_BAD_BODY MPUB invalid body size -2"),
        (b"\0\0\x03\xe9", "E_BAD_BODY MPUB body too big 1001 > 1000"),
        (_batch(4, 0), "E_BAD_BODY MPUB invalid message count 0"),
        (_batch(4, -1), "E_BAD_BODY MPUB invalid message count -1"),
        (_batch(4, 200), "E_BAD_BODY MPUB invalid message count 200"),  # (1000 - 4) / 5 is 199
        (_batch(900, 199, b"\0\0\0\0"), "E_BAD_MESSAGE MPUB invalid message(0) body size 0"),
        (_batch(13, 2, sized(b"a"), b"\0\0\0\0"), "E_BAD_MESSAGE MPUB invalid message(1) body size 0"),
        (_batch(8, 1, b"\xff\xff\xff\xff"), "E_BAD_MESSAGE MPUB invalid message(0) body size -1"),
        (_batch(8, 1, b"\0\0\0\x65"), "E_BAD_MESSAGE MPUB message too big 101 > 100"),
    ],
)
def test_mpub_sizes_and_counts(body: bytes, text: str) -> None:
    client = _node().client()
    assert client.ask(b"MPUB t\n" + body) == [error(text)]
    assert client.closed
    assert client.node.topic().depth == 0


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (b"", "E_BAD_BODY MPUB failed to read body size"),
        (b"\0\0\0", "E_BAD_BODY MPUB failed to read body size"),
        (b"\0\0\0\x20", "E_BAD_BODY MPUB failed to read message count"),
        (b"\0\0\0\x20\0\0\0", "E_BAD_BODY MPUB failed to read message count"),
        (_batch(32, 2), "E_BAD_MESSAGE MPUB failed to read message(0) body size"),
        (_batch(32, 2, b"\0\0\0"), "E_BAD_MESSAGE MPUB failed to read message(0) body size"),
        (_batch(32, 2, b"\0\0\0\x02"), "E_BAD_MESSAGE MPUB failed to read message body"),
        (_batch(32, 2, b"\0\0\0\x02a"), "E_BAD_MESSAGE MPUB failed to read message body"),
        (_batch(32, 2, sized(b"ab")), "E_BAD_MESSAGE MPUB failed to read message(1) body size"),
        (_batch(32, 2, sized(b"ab"), b"\0\0\0"), "E_BAD_MESSAGE MPUB failed to read message(1) body size"),
        (_batch(32, 2, sized(b"ab"), b"\0\0\0\x03abc"[:6]), "E_BAD_MESSAGE MPUB failed to read message body"),
    ],
)
@pytest.mark.parametrize("split", [1, 100])
def test_mpub_cut_short(part: bytes, text: str, split: int) -> None:
    client = Node().client()
    client.send(b"MPUB t\n")
    for at in range(0, len(part), split):
        client.send(part[at : at + split])
    assert client.eof() == [error(text)]
    assert client.closed
    assert client.node.topic().depth == 0  # half a batch is nothing


@pytest.mark.parametrize(
    "body",
    [
        _batch(3, 1, sized(b"a")),
        _batch(8, 1, sized(b"a")),
        _batch(10, 1, sized(b"a")),
        _batch(13, 2, sized(b"a"), sized(b"b")),
        _batch(15, 2, sized(b"a"), sized(b"b")),
        _batch(900, 1, sized(b"a")),
    ],
)
def test_a_declared_size_that_does_not_match_is_refused(body: bytes) -> None:
    """DEVIATIONS: nsqd does not look; whatever follows would be read as the next command."""
    client = _node().client()
    frames = client.ask(b"MPUB t\n" + body + b"NOP\n")
    assert len(frames) == 1
    assert frames[0].type == 1
    assert frames[0].payload.startswith(b"E_BAD_BODY MPUB ")
    assert client.closed
    assert client.node.topic().depth == 0


# -- what is published -----------------------------------------------------------------------------------------------


def test_mpub_at_its_limits() -> None:
    client = _node().client()
    assert client.ask(b"MPUB t\n" + _batch(4 + 5 * 199, 199, sized(b"x") * 199)) == [OK]
    assert client.ask(mpub(b"t", [b"x" * 100])) == [OK]
    assert client.node.topic().depth == 200


def test_messages_come_as_they_were_sent() -> None:
    node = Node()
    consumer = node.consumer(100)
    bodies = [b"\n", b"FIN x\n", bytes(range(256)), b"x" * 5000, b"\0\0\0\x01"]
    asked = b"".join(command(b"PUB t", body) for body in bodies) + mpub(b"t", bodies) + command(b"DPUB t 0", b"last")
    assert node.client().ask(asked) == [OK] * 7
    messages = consumer.messages()
    assert [message.body for message in messages] == [*bodies, *bodies, b"last"]
    assert all(message.attempts == 1 for message in messages)
    assert all(message.timestamp_ns == node.wall_ns for message in messages)
    ids = [message.id for message in messages]
    assert ids == sorted(set(ids))


def test_published_counts_are_per_topic() -> None:
    node = Node()
    client = node.client()
    client.ask(command(b"PUB a", b"x") + mpub(b"b", [b"1", b"2"]) + command(b"DPUB a 5", b"x"))
    assert client.session.published == {"a": 2, "b": 2}
    assert {name: topic.message_count for name, topic in node.broker.topics.items()} == {"a": 2, "b": 2}


def test_a_publish_costs_one_append_a_topic_and_turn() -> None:
    logs = FailingLogs()
    node = Node(logs)
    one, two = node.client(), node.client()
    one.send(command(b"PUB t", b"x") * 10 + mpub(b"t", [b"y"] * 5) + command(b"PUB u", b"x"))
    two.send(command(b"PUB t", b"x") * 10)
    node.turn()
    assert logs.appended() == {"t": [25], "u": [1]}
    assert (one.take(), two.take()) == ([OK] * 12, [OK] * 10)


def test_no_reply_leaves_before_the_log_has_the_message() -> None:
    logs = FailingLogs()
    node = Node(logs)
    client = node.client()
    client.send(command(b"PUB t", b"x"))
    assert (client.take(), logs.appended()) == ([], {"t": []})
    node.turn()
    assert (client.take(), logs.appended()) == ([OK], {"t": [1]})


# -- deferred publishes ----------------------------------------------------------------------------------------------


def test_dpub_counts_from_the_publish_and_comes_on_time() -> None:
    """DEVIATIONS: due = publish time + delay, also when the channel comes later."""
    node = Node()
    client = node.client()
    assert client.ask(command(b"DPUB t 1000", b"x")) == [OK]
    node.advance(ms=600)
    consumer = node.consumer(1)
    stats = node.broker.stats().topics
    assert stats is not None
    (channel,) = stats[0].channels
    assert (channel.depth, channel.deferred_count, channel.message_count) == (0, 1, 1)
    node.advance(ns=400 * MS - 1)
    assert consumer.take() == []
    node.advance(ns=1)
    (message,) = consumer.messages()
    assert (message.body, message.attempts) == (b"x", 1)
    assert node.wall_ns - message.timestamp_ns == 1000 * MS


def test_dpubs_come_in_the_order_of_their_due_times() -> None:
    node = Node()
    consumer = node.consumer(10)
    delays = [300, 100, 200, 100, 0, 300]
    node.client().ask(b"".join(command(b"DPUB t %d" % ms, b"%d-%d" % (ms, at)) for at, ms in enumerate(delays)))
    assert consumer.bodies() == [b"0-4"]
    for ms, expected in ((100, [b"100-1", b"100-3"]), (100, [b"200-2"]), (100, [b"300-0", b"300-5"])):
        node.advance(ms=ms)
        assert consumer.bodies() == expected


# -- a log that refuses ----------------------------------------------------------------------------------------------

CAUSE = "open x: no space left on device"


@pytest.mark.parametrize(
    ("verb", "asked"),
    [
        ("PUB", command(b"PUB t", b"x")),
        ("MPUB", mpub(b"t", [b"x", b"y"])),
        ("DPUB", command(b"DPUB t 5", b"x")),
        ("DPUB", command(b"DPUB t 0", b"x")),
    ],
)
def test_a_failed_append_is_answered_in_the_place_of_ok(verb: str, asked: bytes) -> None:
    logs = FailingLogs()
    node = Node(logs)
    consumer = node.consumer(10)
    client = node.client()
    logs.refuse_append("t", CAUSE)
    assert client.ask(command(b"PUB u", b"x") + asked + command(b"PUB u", b"y")) == [
        OK,
        error(f"E_{verb}_FAILED {verb} failed {CAUSE}"),
    ]
    assert client.closed
    node.advance(s=1)
    assert consumer.take() == []
    assert (node.topic().message_count, node.topic().message_bytes) == (0, 0)
    logs.refuse_append("t", "")
    assert node.client().ask(command(b"PUB t", b"again")) == [OK]
    assert consumer.bodies() == [b"again"]


@pytest.mark.parametrize("order", [(b"t", b"u"), (b"u", b"t")])
def test_only_the_first_failure_of_a_client_is_answered(order: tuple[bytes, bytes]) -> None:
    """Every failure is fatal, so nothing comes behind the first, whichever log fails first."""
    logs = FailingLogs()
    for topic in ("t", "u"):
        logs.refuse_append(topic, f"{topic} is full")
    node = Node(logs)
    node.client().send(command(b"PUB t", b"somebody else's"))
    client = node.client()
    frames = client.ask(command(b"PUB v", b"x") + b"".join(command(b"PUB " + topic, b"x") for topic in order))
    assert frames == [OK, error(b"E_PUB_FAILED PUB failed %b is full" % order[0])]
    assert client.closed


def test_a_failed_append_comes_before_a_later_error() -> None:
    logs = FailingLogs()
    logs.refuse_append("t", CAUSE)
    client = Node(logs).client()
    assert client.ask(command(b"PUB t", b"x") + b"FOO\n") == [error(f"E_PUB_FAILED PUB failed {CAUSE}")]


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (command(b"PUB t", b"x"), f"E_PUB_FAILED PUB failed {CAUSE}"),
        (command(b"DPUB t 5", b"x"), f"E_DPUB_FAILED DPUB failed {CAUSE}"),
        (command(b"DPUB t 0", b"x"), f"E_DPUB_FAILED DPUB failed {CAUSE}"),
        (mpub(b"t", [b"x"]), f"E_MPUB_FAILED MPUB failed {CAUSE}"),
        (b"SUB t c\n", f"E_SUB_FAILED SUB failed {CAUSE}"),
    ],
)
def test_a_log_that_cannot_be_opened(asked: bytes, text: str) -> None:
    logs = FailingLogs()
    logs.refuse_open["t"] = CAUSE
    client = Node(logs).client()
    assert client.ask(command(b"PUB u", b"x") + asked) == [OK, error(text)]
    assert client.closed
    assert set(client.node.broker.topics) == {"u"}


def test_the_log_of_a_topic_that_was_deleted_in_the_turn_is_left_alone() -> None:
    logs = FailingLogs()
    node = Node(logs)
    client = node.client()
    client.send(command(b"PUB t", b"x") + command(b"DPUB t 5", b"x"))
    deleted = logs.logs["t"]
    node.broker.delete_topic("t")
    client.send(command(b"PUB t", b"y"))
    node.turn()
    assert client.take() == [OK, OK, OK]
    assert node.topic().message_count == 1
    assert (deleted.records, logs.appended()) == ([], {"t": [1]})


# -- split anywhere --------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=8), st.lists(st.integers(0, 400), max_size=10))
def test_mpub_split_at_any_byte(bodies: list[bytes], cuts: list[int]) -> None:
    node = Node()
    consumer = node.consumer(2500)
    stream = mpub(b"t", bodies) + command(b"PUB t", b"behind")
    client = node.client()
    bounds = [0, *sorted({cut % len(stream) for cut in cuts}), len(stream)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if stop < len(stream):
            client.send(stream[start:stop])
            node.turn()
        else:
            client.send(stream[start:])
    node.turn()
    assert client.take() == [OK, OK]
    assert consumer.bodies() == [*bodies, b"behind"]


# -- PUB again and again ---------------------------------------------------------------------------------------------


def test_what_comes_after_a_pub_is_read_as_ever() -> None:
    """A line that came before is taken by its bytes; a longer or shorter one, another topic, a bad size are not."""
    node = _node()
    client = node.client()
    again = command(b"PUB t", b"x")
    assert client.ask(again * 3 + command(b"PUB tt", b"yy") + again + b"PUB t\r\n" + sized(b"z")) == [OK] * 6
    assert (node.topic("t").message_count, node.topic("tt").message_count) == (5, 1)
    assert client.ask(again[:-1]) == []
    assert client.ask(b"x") == [OK]
    assert client.ask(again + b"PUB t\n" + struct.pack(">i", 101)) == [
        OK,
        error("E_BAD_MESSAGE PUB message too big 101 > 100"),
    ]
    assert node.topic("t").message_count == 7


def test_a_topic_that_was_deleted_meanwhile_is_there_again() -> None:
    node = _node()
    client = node.client()
    assert client.ask(command(b"PUB t", b"x") * 2) == [OK] * 2
    node.broker.delete_topic("t")
    assert client.ask(command(b"PUB t", b"x")) == [OK]
    assert node.topic("t").message_count == 1


def test_a_pub_a_read() -> None:
    """Whatever else a read brings is carried out as ever, and so is a PUB whose beginning came in a read before."""
    node = _node()
    client = node.client()
    consumer = node.consumer(100)
    bodies = [b"1", b"22", b"333", b"4"]
    for body in bodies:
        assert client.ask(command(b"PUB t", body)) == [OK]
    assert client.ask(command(b"PUB tt", b"x")) == [OK]
    for data in (command(b"PUB t", b"5"), command(b"PUB t", b"6") + command(b"PUB t", b"7")):
        assert set(client.ask(data)) == {OK}
    for cut in range(1, 12):
        assert client.ask(command(b"PUB t", b"8")) == [OK]
        whole = command(b"PUB t", b"PUB t\n\0\0\0\x01x")
        assert client.ask(whole[:cut]) == []
        assert client.ask(whole[cut:]) == [OK]
    rest = [b"8", b"PUB t\n\0\0\0\x01x"] * 11
    assert consumer.bodies() == [*bodies, b"5", b"6", b"7", *rest]
    assert client.ask(mpub(b"t", [b"PUB t\n"])[:-6]) == []
    assert client.ask(b"PUB t\n") == [OK]
    assert consumer.bodies() == [b"PUB t\n"]


@pytest.mark.parametrize(
    ("size", "answer"), [(0, "invalid message body size 0"), (-1, "invalid message body size -1"), (101, "too big")]
)
def test_a_bad_pub_a_read(size: int, answer: str) -> None:
    node = _node()
    client = node.client()
    for _ in range(3):
        assert client.ask(command(b"PUB t", b"x")) == [OK]
    (frame,) = client.ask(b"PUB t\n" + struct.pack(">i", size) + b"x" * max(0, size))
    assert answer.encode() in frame.payload
    assert client.closed


def test_a_pub_a_read_to_a_topic_that_cannot_be_created() -> None:
    node = _node(max_topics=1)
    client = node.client()
    for _ in range(3):
        assert client.ask(command(b"PUB t", b"x")) == [OK]
    node.broker.delete_topic("t")
    node.broker.topic("other")
    (frame,) = client.ask(command(b"PUB t", b"x"))
    assert frame.payload.startswith(b"E_PUB_FAILED")
    assert client.closed


def test_a_pub_a_read_keeps_the_client_from_being_silent() -> None:
    node = _node()
    client = node.client()
    for _ in range(10):
        node.advance(s=40)
        assert OK in client.ask(command(b"PUB t", b"x"))
    assert not client.closed
    node.advance(s=61)
    assert client.closed
