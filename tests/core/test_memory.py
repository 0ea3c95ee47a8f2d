"""Nothing stays behind: sessions, consumers and channels are freed when they are gone, whatever timers are pending."""

import gc
import tracemalloc
import weakref

import pytest

from tests.support.session_wire import Client, Node, command, mpub


class Gone:
    """Tells whether a session is freed: the session holds its peer, which is weakly held here."""

    def __init__(self, client: Client) -> None:
        self._peer = weakref.ref(client)

    def __bool__(self) -> bool:
        gc.collect()  # a connection and its session hold each other
        return self._peer() is None


def test_a_connection_that_did_nothing() -> None:
    node = Node()
    client = node.client()
    node.turn()
    client.drop()
    gone = Gone(client)
    del client
    assert gone


def test_a_consumer_with_messages_and_pending_timers() -> None:
    node = Node()
    client = node.consumer(10)
    node.publish(*[b"x"] * 20)
    client.send(b"TOUCH " + client.messages()[0].id + b"\n")
    node.turn()
    client.drop()
    gone = Gone(client)
    del client
    node.turn()
    assert gone
    assert node.broker.next_due_ns == 0
    assert node.channel().depth == 20


@pytest.mark.parametrize("rdy", [0, 5, 100])
@pytest.mark.parametrize("what", ["channel", "topic"])
def test_a_consumer_whose_channel_or_topic_is_deleted(rdy: int, what: str) -> None:
    """Its message timeouts, up to --max-msg-timeout away, must not keep it."""
    node = Node()
    client = node.consumer(rdy)
    node.publish(*[b"x"] * 20)
    client.take()
    if what == "topic":
        node.broker.delete_topic("t")
    else:
        node.topic().delete_channel("c")
    node.turn()
    assert client.closed
    gone = Gone(client)
    del client
    assert gone
    assert node.broker.next_due_ns == 0


def test_an_ephemeral_channel_that_went_with_its_client() -> None:
    node = Node()
    client = node.consumer(5, topic=b"t#ephemeral", channel=b"c#ephemeral")
    node.publish(*[b"x"] * 20, topic=b"t#ephemeral")
    client.drop()
    gone = Gone(client)
    del client
    node.turn()
    assert gone
    assert node.broker.dirty == {}
    assert node.broker.topics == {}


def test_a_closed_channel_is_not_dirty() -> None:
    node = Node()
    client = node.consumer(5)
    client.send(b"RDY 7\n")
    publisher = node.client()
    publisher.send(command(b"PUB t", b"x") + command(b"DPUB t 10", b"y"))
    assert node.channel() in node.broker.dirty
    node.topic().delete_channel("c")
    assert node.broker.dirty == {}
    node.turn()
    node.advance(s=1)
    assert node.broker.dirty == {}


def test_a_connection_lost_in_the_middle_of_a_body() -> None:
    node = Node()
    for start in (
        b"PUB t\n\0\x0f\0\0" + b"x" * 1000,
        b"MPUB t\n\0\x0f\0\0\0\0\0\x05\0\0\0\x01a\0\0",
        b"IDENTIFY\n\0\0",
    ):
        client = node.client()
        client.send(start)
        node.turn()
        client.drop()
        gone = Gone(client)
        del client
        assert gone


def test_a_fatal_error_frees_too() -> None:
    node = Node()
    client = node.consumer(5)
    node.publish(b"x")
    client.send(b"FOO\n")
    node.turn()
    gone = Gone(client)
    del client
    node.turn()
    assert gone


def test_a_publisher_that_is_gone_before_its_publish_is_committed() -> None:
    node = Node()
    client = node.client()
    client.send(command(b"PUB t", b"x") + command(b"DPUB t 10", b"y") + mpub(b"u", [b"z"]))
    client.drop()
    gone = Gone(client)
    del client
    node.turn()
    assert gone
    assert node.topic().depth == 2


def _held() -> int:
    return tracemalloc.get_traced_memory()[0]


def test_a_thousand_connections_leave_nothing_but_due_times() -> None:
    node = Node()
    tracemalloc.start()
    try:
        before = _held()
        for _ in range(1000):
            client = node.consumer(5)
            client.drop()
        del client
        node.turn()
        gc.collect()
        assert _held() - before < 1000 * 1500
        node.advance(s=61)
        gc.collect()
        assert _held() - before < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "command_line", [b"PUB t\n\0\x50\0\0", b"MPUB t\n\0\x50\0\0\0\0\x10\0", b"IDENTIFY\n\0\x50\0\0"]
)
def test_a_declared_body_of_5_megabytes_allocates_nothing(command_line: bytes) -> None:
    node = Node(max_msg_size=5 << 20)
    client = node.client()
    node.turn()
    tracemalloc.start()
    try:
        before = _held()
        client.send(command_line)
        client.send(b"\0")
        node.turn()
        assert _held() - before < 10_000
    finally:
        tracemalloc.stop()
    assert not client.closed


def test_a_connection_that_waits_for_a_body_does_not_hold_the_read_before_it() -> None:
    node = Node()
    client = node.client()
    node.client().ask(b"SUB t c\n")
    read = command(b"PUB t", b"x" * 1000) * 200 + b"PUB t\n\0\0\0\x05"
    node.turn()
    tracemalloc.start()
    try:
        before = _held()
        client.send(bytes(bytearray(read)))
        node.turn()
        node.channel().empty()
        node.turn()  # with a checkpoint
        gc.collect()
        assert _held() - before < 100_000
    finally:
        tracemalloc.stop()


def test_finished_messages_are_let_go() -> None:
    node = Node()
    client = node.consumer(2500)
    node.publish(b"warm up")
    client.send(b"FIN " + client.messages()[0].id + b"\n")
    node.turn()
    tracemalloc.start()
    try:
        before = _held()
        for _ in range(20):
            node.publish(*[b"x" * 200] * 500)
            client.send(b"".join(b"FIN " + message.id + b"\n" for message in client.messages()))
            node.turn()
        node.checkpoint()
        gc.collect()
        assert _held() - before < 100_000
    finally:
        tracemalloc.stop()
