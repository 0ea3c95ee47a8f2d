"""A channel: order, shares, pause, empty, ephemeral ones (PROTOCOL 1.10, 1.11, 1.14, 1.16)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.session_wire import Node, S, command, error

# -- order -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), max_size=12), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_first_deliveries_are_in_publish_order(batches: list[int], windows: list[int]) -> None:
    """DEVIATIONS: always, whatever is cut out of which batch."""
    node = Node()
    consumer = node.consumer(0)
    bodies = [b"%d" % number for number in range(sum(batches))]
    at = 0
    for size in batches:
        node.publish(*bodies[at : at + size])
        at += size
    got: list[bytes] = []
    step = 0
    while len(got) < len(bodies):
        consumer.send(b"RDY %d\n" % windows[step % len(windows)])
        node.turn()
        messages = consumer.messages()
        assert len(messages) == min(windows[step % len(windows)], len(bodies) - len(got))
        got += [message.body for message in messages]
        for message in messages:
            consumer.send(b"FIN " + message.id + b"\n")
        consumer.send(b"RDY 0\n")
        node.turn()
        step += 1
    assert got == bodies
    assert (node.channel().depth, node.channel().in_flight_count) == (0, 0)


def test_requeued_and_timed_out_messages_go_to_the_tail() -> None:
    node = Node()
    consumer = node.consumer(3, msg_timeout=1000)
    node.publish(b"a", b"b", b"c", b"d", b"e")
    _, b, _ = consumer.messages()
    consumer.send(b"RDY 0\nREQ " + b.id + b" 0\n")
    node.advance(s=1)
    consumer.send(b"RDY 10\n")
    node.turn()
    assert consumer.bodies() == [b"d", b"e", b"b", b"a", b"c"]


# -- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consumers", [2, 3, 7, 16])
@pytest.mark.parametrize("messages", [1000, 2500])
def test_one_large_batch_is_shared(consumers: int, messages: int) -> None:
    node = Node()
    clients = [node.consumer(2500) for _ in range(consumers)]
    node.publish(*[b"%d" % number for number in range(messages)])
    shares = [len(client.messages()) for client in clients]
    assert sum(shares) == messages
    assert min(shares) >= messages / consumers / 2


@pytest.mark.parametrize("consumers", [2, 3, 8])
def test_single_messages_go_round(consumers: int) -> None:
    node = Node()
    clients = [node.consumer(2500) for _ in range(consumers)]
    for number in range(consumers * 30):
        node.publish(b"%d" % number)
    assert [len(client.messages()) for client in clients] == [30] * consumers


@pytest.mark.parametrize("rdy", [1, 5])
def test_consumers_that_finish_at_the_same_pace_get_the_same(rdy: int) -> None:
    node = Node()
    clients = [node.consumer(rdy) for _ in range(5)]
    node.publish(*[b"%d" % number for number in range(500)])
    totals = [0] * 5
    while sum(totals) < 500:
        for at, client in enumerate(clients):
            for message in client.messages():
                totals[at] += 1
                client.send(b"FIN " + message.id + b"\n")
        node.turn()
    assert sum(totals) == 500
    assert min(totals) >= 50


@settings(max_examples=60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=10), st.integers(2, 6))
def test_over_many_turns_nobody_gets_less_than_half_a_share(batches: list[int], consumers: int) -> None:
    node = Node()
    clients = [node.consumer(2500) for _ in range(consumers)]
    for size in batches:
        node.publish(*[b"x"] * size)
    shares = [len(client.messages()) for client in clients]
    assert sum(shares) == sum(batches)
    # Half of a share, in whole messages, and one for the batch that came last.
    assert min(shares) >= sum(batches) // consumers // 2 - 1


def test_a_full_consumer_takes_no_share() -> None:
    node = Node()
    full, ready, closed_window = node.consumer(1), node.consumer(100), node.consumer(0)
    node.publish(*[b"x"] * 50)
    assert [len(client.messages()) for client in (full, ready, closed_window)] == [1, 49, 0]


def test_lowering_and_raising_rdy_while_waiting() -> None:
    node = Node()
    client, other = node.consumer(5), node.consumer(5)
    client.send(b"RDY 0\n")
    node.publish(b"a", b"b")
    assert (client.bodies(), other.bodies()) == ([], [b"a", b"b"])
    client.send(b"RDY 1\n")
    node.publish(b"c", b"d")
    got = (client.bodies(), other.bodies())
    assert sorted(got) == [[b"c"], [b"d"]]


def test_what_is_published_while_nobody_waits_costs_neither_a_delivery_nor_a_checkpoint() -> None:
    node = Node(durability="memory")
    client = node.consumer(1)
    node.publish(b"a")
    node.checkpoint()
    node.client().send(command(b"PUB t", b"b"))
    node.turn()
    assert node.broker.changed == {}
    client.send(b"RDY 2\n")
    node.turn()
    assert client.bodies() == [b"a", b"b"]


# -- pause -----------------------------------------------------------------------------------------------------------


def test_a_paused_channel_keeps_its_messages_and_its_clients() -> None:
    node = Node()
    client = node.consumer(10)
    other = node.consumer(10, channel=b"other")
    node.channel().pause()
    node.publish(b"a")
    node.client().ask(command(b"DPUB t 50", b"b"))
    node.advance(ms=100)
    assert client.take() == []
    assert other.bodies() == [b"a", b"b"]
    assert (node.channel().depth, node.channel().paused, client.closed) == (2, True, False)
    newcomer = node.consumer(10)
    assert newcomer.take() == []
    node.channel().unpause()
    node.turn()
    assert sorted(client.bodies() + newcomer.bodies()) == [b"a", b"b"]


def test_a_paused_channel_does_not_keep_the_turn_busy() -> None:
    node = Node()
    node.consumer(10)
    node.channel().pause()
    node.publish(b"a")
    turns = node.turns
    node.turn()
    assert node.turns == turns + 1
    assert node.broker.dirty == {}


# -- empty -----------------------------------------------------------------------------------------------------------


def test_empty_drops_everything_and_resets_the_windows() -> None:
    node = Node()
    client = node.consumer(2, msg_timeout=1000)
    node.publish(b"a", b"b", b"c", b"d")
    a, b = client.messages()
    node.client().ask(command(b"DPUB t 100", b"e"))
    client.send(b"REQ " + b.id + b" 200\n")
    node.turn()
    client.take()
    channel = node.channel()
    assert (channel.depth, channel.in_flight_count, len(channel.deferred)) == (1, 2, 2)
    channel.empty()
    node.turn()
    assert (channel.depth, channel.in_flight_count, len(channel.deferred)) == (0, 0, 0)
    assert client.ask(b"FIN " + a.id + b"\n") == [error(b"E_FIN_FAILED FIN %b failed ID not in flight" % a.id)]
    node.advance(s=10)
    assert client.take() == []
    assert channel.timeout_count == 0
    node.publish(b"f", b"g", b"h")
    assert client.bodies() == [b"f", b"g"]


def test_empty_in_the_middle_of_a_batch() -> None:
    node = Node()
    client = node.consumer(3)
    node.publish(*[b"%d" % number for number in range(10)])
    node.channel().empty()
    node.publish(*[b"n%d" % number for number in range(10)])
    node.turn()
    assert client.bodies() == [b"0", b"1", b"2", b"n0", b"n1", b"n2"]


def test_a_new_delivery_after_empty_times_out_by_its_own_time() -> None:
    node = Node()
    client = node.consumer(1, msg_timeout=1000)
    node.publish(b"a")
    node.advance(ms=400)
    node.channel().empty()
    node.publish(b"b")
    assert client.bodies() == [b"a", b"b"]
    node.advance(ns=S - 1)
    assert client.take() == []
    node.advance(ns=1)
    assert client.bodies() == [b"b"]


def test_deferred_after_empty_is_on_time() -> None:
    node = Node()
    client = node.consumer(10)
    node.client().ask(command(b"DPUB t 100", b"a"))
    node.channel().empty()
    node.client().ask(command(b"DPUB t 300", b"b"))
    node.advance(ms=299)
    assert client.take() == []
    node.advance(ms=1)
    assert client.bodies() == [b"b"]


# -- ephemeral -------------------------------------------------------------------------------------------------------


def test_an_ephemeral_channel_goes_with_its_last_client() -> None:
    node = Node()
    one, two = (node.consumer(1, channel=b"c#ephemeral") for _ in range(2))
    node.publish(b"x", b"y", b"z")
    one.drop()
    node.turn()
    assert len(node.channel("c#ephemeral").consumers) == 1
    two.drop()
    node.turn()
    assert node.topic().channels == {}
    node.publish(b"w")
    assert node.topic().depth == 1
    assert node.broker.dirty == {}


def test_a_normal_channel_stays_with_its_messages() -> None:
    node = Node()
    client = node.consumer(1)
    node.publish(b"x", b"y")
    client.drop()
    node.turn()
    assert (node.channel().depth, len(node.channel().consumers)) == (2, 0)


@pytest.mark.parametrize(("size", "limit"), [(5, 5), (0, 100)])
def test_an_ephemeral_channel_drops_what_does_not_fit(size: int, limit: int) -> None:
    node = Node(mem_queue_size=size)
    client = node.consumer(0, channel=b"c#ephemeral")
    for start in range(0, 150, 3):
        node.publish(*[b"%d" % number for number in range(start, start + 3)])
    channel = node.channel("c#ephemeral")
    assert (channel.depth, channel.message_count) == (limit, 150)
    client.send(b"RDY 500\n")
    node.turn()
    assert client.bodies() == [b"%d" % number for number in range(limit)]


def test_a_normal_channel_drops_nothing() -> None:
    node = Node(mem_queue_size=5)
    client = node.consumer(0)
    for _ in range(10):
        node.publish(*[b"x"] * 7)
    assert node.channel().depth == 70
    client.send(b"RDY 500\n")
    node.turn()
    assert client.bodies() == [b"x"] * 70
