"""FIN, REQ and TOUCH: every row of PROTOCOL 1.4, and what they do (1.11)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core.batch import Batch
from pynsqd.wire.encoder import with_attempts
from tests.support.session_wire import CLOSE_WAIT, MS, Client, Node, S, error
from tests.support.wire import Frame, Message

ID = b"0123456789abcdef"


def _with_message(node: Node, **identify: int) -> tuple[Client, Message]:
    client = node.consumer(1, **identify)
    node.publish(b"x")
    (message,) = client.messages()
    return client, message


# -- rows of 1.4 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"FIN", "E_INVALID FIN insufficient number of params"),
        (b"REQ", "E_INVALID REQ insufficient number of params"),
        (b"REQ " + ID, "E_INVALID REQ insufficient number of params"),
        (b"REQ abc", "E_INVALID REQ insufficient number of params"),
        (b"TOUCH", "E_INVALID TOUCH insufficient number of params"),
        *[
            (verb + one + (b" 0" if verb == b"REQ" else b""), "E_INVALID invalid message ID")
            for verb in (b"FIN", b"REQ", b"TOUCH")
            for one in (b" ", b" abc", b"  " + ID, b" " + ID + b"0", b" " + ID[:15])
        ],
        (b"REQ abc x", "E_INVALID invalid message ID"),
        (b"REQ " + ID + b" x", "E_INVALID REQ could not parse timeout x"),
        (b"REQ " + ID + b" -1", "E_INVALID REQ could not parse timeout -1"),
        (b"REQ " + ID + b" 1.5", "E_INVALID REQ could not parse timeout 1.5"),
        (b"REQ " + ID + b" \xfe", b"E_INVALID REQ could not parse timeout \xfe"),
    ],
)
def test_fatal(line: bytes, text: str | bytes) -> None:
    client = Node().consumer(1)
    assert client.ask(line + b"\nNOP\n") == [error(text)]
    assert client.closed


@pytest.mark.parametrize("one", [ID, b"\xff" * 16, b"\0" * 16, b"\t" * 16, ID[:15] + b"\xc3"])
@pytest.mark.parametrize(("verb", "tail"), [(b"FIN", b""), (b"REQ", b" 0"), (b"REQ", b" "), (b"TOUCH", b"")])
def test_not_in_flight_is_not_fatal(verb: bytes, tail: bytes, one: bytes) -> None:
    client = Node().consumer(1)
    line = verb + b" " + one + tail + b"\n"
    told = error(b"E_%b_FAILED %b %b failed ID not in flight" % (verb, verb, one))
    assert client.ask(line * 2 + b"CLS\n") == [told, told, CLOSE_WAIT]
    assert not client.closed


@pytest.mark.parametrize(("verb", "tail"), [(b"FIN", b""), (b"REQ", b" 0"), (b"TOUCH", b"")])
def test_somebody_elses_message(verb: bytes, tail: bytes) -> None:
    node = Node()
    owner, message = _with_message(node)
    other = node.consumer(1)
    told = [error(b"E_%b_FAILED %b %b failed client does not own message" % (verb, verb, message.id))]
    assert other.ask(verb + b" " + message.id + tail + b"\n") == told
    elsewhere = node.consumer(0, channel=b"d")
    told = [error(b"E_%b_FAILED %b %b failed ID not in flight" % (verb, verb, message.id))]
    assert elsewhere.ask(verb + b" " + message.id + tail + b"\n") == told
    assert owner.ask(b"FIN " + message.id + b"\n") == []
    assert node.channel().in_flight_count == 0


# -- FIN -------------------------------------------------------------------------------------------------------------


def test_fin_is_once_and_silent() -> None:
    node = Node()
    client, message = _with_message(node)
    line = b"FIN " + message.id + b"\n"
    assert client.ask(line) == []
    assert client.ask(line) == [error(b"E_FIN_FAILED FIN %b failed ID not in flight" % message.id)]
    consumer = client.session.consumer
    assert consumer is not None
    assert consumer.finish_count == 1
    node.advance(s=100)
    assert node.channel().depth == node.channel().in_flight_count == 0


def test_fin_in_one_channel_leaves_the_others() -> None:
    node = Node()
    one = node.consumer(1, channel=b"one")
    two = node.consumer(1, channel=b"two")
    node.publish(b"x")
    (message,) = one.messages()
    assert [other.id for other in two.messages()] == [message.id]
    assert one.ask(b"FIN " + message.id + b"\n") == []
    assert node.channel("two").in_flight_count == 1


FIN_LINES = st.lists(
    st.tuples(
        st.sampled_from(["mine", "mine", "mine", "again", "other", "unknown", "raw"]),
        st.integers(0, 39),
        st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b" x\n"]),
    ),
    max_size=40,
)


@given(FIN_LINES, st.booleans(), st.lists(st.integers(0, 2000), max_size=5))
def test_a_run_of_fins_is_answered_as_one_by_one(
    script: list[tuple[str, int, bytes]], short_at_end: bool, cuts: list[int]
) -> None:
    """The fast path of a run, the general path in one read, cut at any byte, and a turn for each line."""
    told: list[list[Frame]] = []
    left: list[tuple[int, int, bool]] = []
    for way in ("run", "lines", "cut", "turns"):
        node = Node()
        client = node.consumer(40)
        other = node.consumer(0)
        node.publish(*[b"%d" % number for number in range(40)])
        mine = [message.id for message in client.messages()]
        other.send(b"RDY 40\n")
        node.publish(*[b"%d" % number for number in range(40)])
        others = [message.id for message in other.messages()]
        table = {
            "mine": mine,
            "again": mine[:3] * 14,
            "other": others,
            "unknown": [b"%016x" % number for number in range(40)],
            "raw": [bytes([33 + number, 9, 255]) * 5 + b"%" for number in range(40)],
        }
        stream = [b"FIN " + table[kind][number] + end for kind, number, end in script]
        if short_at_end:
            stream.append(b"FIN short\n")
        stream.append(b"FIN " + mine[0] + b"\n")
        if way == "run":
            client.send(b"".join(stream))
        elif way == "lines":  # a parameter too many keeps every line off the fast path
            client.send(b"".join(line.rstrip(b"\r\n") + b" .\n" for line in stream))
        elif way == "cut":
            whole = b"".join(stream)
            bounds = [0, *sorted(cut % len(whole) for cut in cuts), len(whole)]
            for start, stop in zip(bounds, bounds[1:], strict=False):
                client.send(whole[start:stop])
        else:
            for line in stream:
                client.send(line)
                node.turn()
        node.turn()
        told.append(_normal(client.take(), mine, others))
        left.append((node.channel().in_flight_count, node.channel().depth, client.closed))
    assert told[0] == told[1] == told[2] == told[3]
    assert left[0] == left[1] == left[2] == left[3]


def _normal(frames: list[Frame], mine: list[bytes], others: list[bytes]) -> list[Frame]:
    """Each node has its own ids: put their places for them."""
    names = {one: b"mine-%d" % at for at, one in enumerate(mine)} | {
        one: b"other-%d" % at for at, one in enumerate(others)
    }
    return [
        Frame(frame.type, b" ".join(names.get(word, word) for word in frame.payload.split(b" ")))
        for frame in frames
        if frame.type != 2
    ]


# -- REQ -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [b"0", b"", b"18446744073709551615", b"9223372036855", b"18446744073709551616"])
def test_req_at_once(timeout: bytes) -> None:
    """Below zero after wrapping is zero too: no error."""
    node = Node()
    client, message = _with_message(node)
    (again,) = _messages(client.ask(b"REQ " + message.id + b" " + timeout + b"\n"))
    assert (again.id, again.attempts, again.timestamp_ns) == (message.id, 2, message.timestamp_ns)
    assert (node.channel().requeue_count, node.channel().depth, len(node.channel().deferred)) == (1, 0, 0)
    assert client.session.consumer is not None
    assert client.session.consumer.requeue_count == 1


def _messages(frames: list[Frame]) -> list[Message]:
    return [Message.parse(frame.payload) for frame in frames]


@pytest.mark.parametrize(
    ("timeout", "delay_ns"),
    [(b"1", MS), (b"5000", 5 * S), (b"3600000", 3600 * S), (b"3600001", 3600 * S), (b"9223372036854", 3600 * S)],
)
def test_req_with_a_delay_above_the_limit_is_brought_into_it(timeout: bytes, delay_ns: int) -> None:
    node = Node()
    client, message = _with_message(node)
    client.answers = True
    assert client.ask(b"REQ " + message.id + b" " + timeout + b"\n") == []
    channel = node.channel()
    assert (channel.depth, channel.in_flight_count, len(channel.deferred)) == (0, 0, 1)
    node.advance(ns=delay_ns - 1)
    assert client.take() == []
    node.advance(ns=1)
    assert [again.id for again in client.messages()] == [message.id]


def test_a_delayed_message_is_on_time_and_counts_its_attempt() -> None:
    node = Node()
    client, message = _with_message(node)
    client.send(b"REQ " + message.id + b" 250\n")
    node.advance(ns=250 * MS - 1)
    assert client.take() == []
    node.advance(ns=1)
    (again,) = client.messages()
    assert (again.id, again.attempts, again.body) == (message.id, 2, b"x")
    assert client.ask(b"FIN " + message.id + b"\n") == []


def test_a_requeued_message_goes_to_the_tail_and_frees_the_window() -> None:
    node = Node()
    client = node.consumer(1)
    node.publish(b"a", b"b")
    (first,) = client.messages()
    client.send(b"REQ " + first.id + b" 0\n")
    node.turn()
    (second,) = client.messages()
    assert second.body == b"b"
    client.send(b"FIN " + second.id + b"\n")
    node.turn()
    assert [message.body for message in client.messages()] == [b"a"]


def test_req_of_one_of_many() -> None:
    """The frame of one message is cut out of the delivery it went out with."""
    node = Node()
    client = node.consumer(100)
    node.publish(*[b"%d" % number * (number + 1) for number in range(50)])
    messages = client.messages()
    for message in messages[::7]:
        client.send(b"REQ " + message.id + b" 0\n")
    node.turn()
    again = client.messages()
    assert [message.body for message in again] == [message.body for message in messages[::7]]
    assert [message.id for message in again] == [message.id for message in messages[::7]]
    assert {message.attempts for message in again} == {2}


def test_attempts_wrap_at_65536() -> None:
    node = Node()
    client, message = _with_message(node)
    consumer = client.session.consumer
    assert consumer is not None
    (delivery,) = consumer.in_flight.entries.values()
    late = Batch([message.id], with_attempts(delivery.frame(message.id), 65534))
    consumer.in_flight.clear()
    consumer.in_flight.add(late, node.now_ns, 60 * S)
    seen = []
    for _ in range(4):
        client.send(b"REQ " + message.id + b" 0\n")
        node.turn()
        seen += [again.attempts for again in client.messages()]
    assert seen == [65535, 0, 1, 2]


# -- TOUCH -----------------------------------------------------------------------------------------------------------


def test_touch_starts_the_timeout_again() -> None:
    node = Node()
    client, message = _with_message(node, msg_timeout=2000)
    for _ in range(5):
        node.advance(ms=1500)
        assert client.ask(b"TOUCH " + message.id + b"\n") == []
    node.advance(ns=2 * S - 1)
    assert client.take() == []
    assert node.channel().timeout_count == 0
    node.advance(ns=1)
    assert [again.attempts for again in client.messages()] == [2]
    assert node.channel().timeout_count == 1


def test_touch_reaches_no_further_than_max_msg_timeout_after_the_delivery() -> None:
    node = Node(max_msg_timeout_ns=5 * S)
    client, message = _with_message(node, msg_timeout=2000)
    for _ in range(3):
        node.advance(ms=1500)
        assert client.ask(b"TOUCH " + message.id + b"\n") == []
    node.advance(ns=S // 2 - 1)  # 5 s after the delivery, less than 2 s after the last touch
    assert client.take() == []
    node.advance(ns=1)
    assert [again.attempts for again in client.messages()] == [2]


def test_touch_of_one_leaves_the_others() -> None:
    node = Node()
    client = node.consumer(3, msg_timeout=2000)
    node.publish(b"a", b"b", b"c")
    a, b, c = client.messages()
    node.advance(ms=1000)
    client.send(b"TOUCH " + b.id + b"\n")
    node.advance(ms=1000)
    assert [message.id for message in client.messages()] == [a.id, c.id]
    node.advance(ns=1000 * MS - 1)
    assert client.take() == []
    node.advance(ns=1)
    assert [message.id for message in client.messages()] == [b.id]


# -- timeouts --------------------------------------------------------------------------------------------------------


def test_a_message_that_timed_out_comes_again_and_is_still_owned_by_connection() -> None:
    node = Node()
    client = node.consumer(1, msg_timeout=1000)
    node.publish(b"x")
    (message,) = client.messages()
    node.advance(s=1)
    (again,) = client.messages()
    assert (again.id, again.attempts) == (message.id, 2)
    assert client.ask(b"FIN " + message.id + b"\n") == []
    assert node.channel().in_flight_count == 0


def test_a_timeout_goes_to_another_consumer_and_frees_the_window() -> None:
    node = Node()
    slow, message = _with_message(node, msg_timeout=1000)
    quick = node.consumer(1)
    slow.send(b"RDY 0\n")
    node.advance(s=1)
    assert slow.take() == []  # no frame tells the old owner
    (again,) = quick.messages()
    assert (again.id, again.attempts) == (message.id, 2)
    assert slow.ask(b"FIN " + message.id + b"\n") == [
        error(b"E_FIN_FAILED FIN %b failed client does not own message" % message.id)
    ]
    assert slow.session.consumer is not None
    assert slow.session.consumer.window == 0
    slow.send(b"RDY 1\n")
    node.publish(b"y")
    assert slow.bodies() == [b"y"]


def test_a_late_fin_in_the_turn_of_the_timeout_still_counts() -> None:
    node = Node()
    client, message = _with_message(node, msg_timeout=1000)
    node.clock.advance(s=1)
    assert client.ask(b"FIN " + message.id + b"\n") == []
    assert node.channel().timeout_count == 0


def test_pause_does_not_hold_acknowledgements_or_timeouts() -> None:
    node = Node()
    client = node.consumer(4, msg_timeout=1000)
    node.publish(b"a", b"b", b"c", b"d")
    a, b, _, _ = client.messages()
    node.channel().pause()
    assert client.ask(b"FIN " + a.id + b"\nREQ " + b.id + b" 0\n") == []
    node.advance(s=1)
    channel = node.channel()
    assert (channel.depth, channel.in_flight_count, channel.timeout_count, channel.requeue_count) == (3, 0, 2, 1)
    assert client.take() == []
    channel.unpause()
    node.turn()
    assert client.bodies() == [b"b", b"c", b"d"]


# -- leaving ---------------------------------------------------------------------------------------------------------


def test_what_a_client_held_goes_to_the_others_when_it_leaves() -> None:
    """DEVIATIONS: at once, where nsqd lets it wait for its timeout."""
    node = Node()
    leaving = node.consumer(3)
    node.publish(b"a", b"b", b"c", b"d")
    held = leaving.messages()
    leaving.send(b"FIN " + held[1].id + b"\n")
    node.turn()
    leaving.take()
    staying = node.consumer(10)
    leaving.drop()
    node.turn()
    again = staying.messages()
    assert [(message.body, message.attempts) for message in again] == [(b"a", 2), (b"c", 2), (b"d", 2)]
    assert node.channel().in_flight_count == 3


def test_an_eof_ends_the_subscription() -> None:
    node = Node()
    client, message = _with_message(node)
    assert client.eof() == []
    assert client.closed
    (again,) = node.consumer(1).messages()
    assert (again.id, again.attempts) == (message.id, 2)
