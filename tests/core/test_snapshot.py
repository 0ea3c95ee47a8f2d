"""What /stats shows: filters, counts, clients (PROTOCOL 2.5)."""

from typing import Any

import pytest

from pynsqd.core.stats import BrokerStats, ChannelStats, ClientStats, Latency, TopicStats
from tests.support.session_wire import MS, OK, Node, S, command, identify_command, mpub


def _stats(node: Node, **filters: Any) -> BrokerStats:
    return node.broker.stats(**filters)


def _names(stats: BrokerStats) -> dict[str, list[str]] | None:
    if stats.topics is None:
        return None
    return {topic.topic_name: [channel.channel_name for channel in topic.channels] for topic in stats.topics}


@pytest.fixture
def node() -> Node:
    """Topics b (channels y, x) and a (channel x)."""
    node = Node()
    for topic, channel in ((b"b", b"y"), (b"b", b"x"), (b"a", b"x")):
        node.consumer(0, topic=topic, channel=channel)
    return node


def test_everything_sorted_by_name(node: Node) -> None:
    assert _names(_stats(node)) == {"a": ["x"], "b": ["x", "y"]}
    assert list(_names(_stats(node)) or {}) == ["a", "b"]


def test_filters(node: Node) -> None:
    assert _names(_stats(node, topic="b")) == {"b": ["x", "y"]}
    assert _names(_stats(node, topic="b", channel="y")) == {"b": ["y"]}
    assert _names(_stats(node, channel="x")) == {"a": ["x"], "b": ["x"]}
    assert _names(_stats(node, channel="y")) == {"b": ["y"]}
    assert _names(_stats(node, topic="a", channel="y")) == {}
    assert _names(_stats(node, channel="z")) == {}


def test_an_unknown_topic_gives_null() -> None:
    node = Node()
    node.client().ask(command(b"PUB t", b"x"))
    assert _stats(node, topic="nope") == BrokerStats(None, None)


def test_nothing_yet() -> None:
    assert _stats(Node()) == BrokerStats((), None)


def test_clients_can_be_left_out(node: Node) -> None:
    node.client().ask(command(b"PUB a", b"x"))
    with_clients, without = _stats(node), _stats(node, include_clients=False)
    assert with_clients.topics is not None
    assert without.topics is not None
    assert with_clients.producers is not None
    assert without.producers is None
    channels = [channel for topic in without.topics for channel in topic.channels]
    assert [channel.clients for channel in channels] == [None] * 3
    assert [channel.client_count for channel in channels] == [1] * 3
    assert [len(channel.clients or ()) for topic in with_clients.topics for channel in topic.channels] == [1] * 3


def test_a_channel_without_clients_has_an_empty_list() -> None:
    node = Node()
    node.consumer(0).drop()
    (topic,) = _stats(node).topics or ()
    assert topic.channels[0].clients == ()


def test_all_counts() -> None:
    node = Node()
    client = node.consumer(4, msg_timeout=1000)
    node.publish(b"abc", b"de", b"f", b"g", b"h", b"i")
    a, b, _, _ = client.messages()
    client.send(b"FIN " + a.id + b"\nREQ " + b.id + b" 60000\nRDY 0\n")
    node.advance(s=1)
    client.send(b"RDY 1\n")
    node.client().ask(command(b"DPUB t 60000", b"jkl"))
    node.channel().pause()
    node.topic().pause()
    node.publish(b"waits")
    assert (_stats(node, include_clients=False).topics or ())[0] == TopicStats(
        topic_name="t",
        channels=(
            ChannelStats(
                channel_name="c",
                depth=3,
                backend_depth=0,
                in_flight_count=1,
                deferred_count=2,
                message_count=7,
                requeue_count=1,
                timeout_count=2,
                client_count=1,
                clients=None,
                paused=True,
                e2e_processing_latency=Latency(0, None),
            ),
        ),
        depth=1,
        backend_depth=0,
        message_count=8,
        message_bytes=17,
        paused=True,
        e2e_processing_latency=Latency(0, None),
    )


def _client_stats(node: Node, **filters: str) -> ClientStats:
    channel = next(topic for topic in _stats(node, **filters).topics or () if topic.topic_name == "t").channels[0]
    (client,) = channel.clients or ()
    return client


def test_a_client() -> None:
    node = Node()
    node.clock.advance(s=3)
    client = node.client(host="192.0.2.1")
    connected_ns = node.wall_ns
    client.ask(
        identify_command(client_id="id", hostname="host", user_agent="agent/1", sample_rate=99, msg_timeout=5000)
    )
    node.advance(s=2)
    assert client.ask(b"SUB t c\nRDY 5\n") == [OK]
    address = client.session.remote_address
    assert _client_stats(node) == ClientStats(
        client_id="id",
        hostname="host",
        version="V2",
        remote_address=address,
        state=3,
        ready_count=5,
        in_flight_count=0,
        message_count=0,
        finish_count=0,
        requeue_count=0,
        connect_ts=connected_ns // S,
        sample_rate=99,
        deflate=False,
        snappy=False,
        user_agent="agent/1",
        authed=False,
        auth_identity="",
        auth_identity_url="",
        pub_counts=(),
        tls=False,
        tls_cipher_suite="",
        tls_version="",
        tls_negotiated_protocol="",
        tls_negotiated_protocol_is_mutual=False,
    )
    assert address.startswith("192.0.2.1:")


def test_a_clients_counts() -> None:
    node = Node()
    client = node.consumer(5)
    client.ask(command(b"PUB u", b"x"))
    node.publish(*[b"x"] * 6)
    a, b, *_ = client.messages()
    client.send(b"FIN " + a.id + b"\nREQ " + b.id + b" 60000\n")
    node.turn()
    shown = _client_stats(node)
    assert (shown.ready_count, shown.in_flight_count, shown.message_count) == (5, 4, 6)
    assert (shown.finish_count, shown.requeue_count, shown.pub_counts) == (1, 1, (("u", 1),))
    assert _client_stats(node, topic="t").pub_counts == ()
    client.ask(b"CLS\n")
    assert (_client_stats(node).state, _client_stats(node).ready_count) == (4, 0)


def test_producers_are_those_who_have_published() -> None:
    """DEVIATIONS: with every topic, where nsqd shows one; with the topic that is asked for, as nsqd does."""
    node = Node()
    node.client()
    consumer = node.consumer(0)
    producer = node.client()
    producer.ask(command(b"PUB t", b"x") + mpub(b"u", [b"y", b"z"]) + command(b"DPUB u 5", b"w"))
    assert [client.pub_counts for client in _stats(node).producers or ()] == [(("t", 1), ("u", 3))]
    consumer.ask(command(b"PUB v", b"x"))  # is in both lists from now on
    assert len(_stats(node).producers or ()) == 2
    assert _client_stats(node).pub_counts == (("v", 1),)
    assert sorted(client.pub_counts for client in _stats(node, topic="u").producers or ()) == [(), (("u", 3),)]
    for client in (producer, consumer):
        client.drop()
    assert _stats(node).producers is None


def test_latencies_of_channels_are_added_up_for_the_topic() -> None:
    node = Node(e2e_processing_latency_percentiles=(0.5, 1.0))
    one, two = node.consumer(5, channel=b"one"), node.consumer(5, channel=b"two")
    node.publish(b"a", b"b")
    for client, wait_ms in ((one, 100), (two, 900)):
        node.advance(ms=wait_ms)
        for message in client.messages():
            client.send(b"FIN " + message.id + b"\n")
        node.turn()
    (topic,) = _stats(node).topics or ()
    assert [channel.e2e_processing_latency.count for channel in topic.channels] == [2, 2]
    latency = topic.e2e_processing_latency
    assert latency.count == 4
    assert latency.percentiles is not None
    (half, median), (whole, longest) = latency.percentiles
    assert (half, whole) == (0.5, 1.0)
    assert median == pytest.approx(100 * MS, rel=0.0101)
    assert longest == pytest.approx(1000 * MS, rel=0.0101)
    quick = topic.channels[0].e2e_processing_latency.percentiles
    assert quick is not None
    assert quick[1][1] == pytest.approx(100 * MS, rel=0.0101)


def test_a_topic_without_channels_has_no_latency() -> None:
    node = Node(e2e_processing_latency_percentiles=(0.5,))
    node.publish(b"x")
    (topic,) = _stats(node).topics or ()
    assert topic.e2e_processing_latency == Latency(0, None)


def test_backend_depth_is_what_nsqd_would_have_on_disk() -> None:
    node = Node(mem_queue_size=3)
    node.publish(*[b"x"] * 5)
    (topic,) = _stats(node).topics or ()
    assert (topic.depth, topic.backend_depth) == (5, 2)
    client = node.consumer(0)
    node.publish(*[b"x"] * 5)
    (topic,) = _stats(node).topics or ()
    assert (topic.depth, topic.backend_depth) == (0, 0)
    assert (topic.channels[0].depth, topic.channels[0].backend_depth) == (10, 7)
    client.send(b"RDY 6\n")
    node.turn()
    (topic,) = _stats(node).topics or ()
    assert topic.channels[0].depth == 4
    assert topic.channels[0].backend_depth <= 1
    client.send(b"RDY 20\n")
    node.turn()
    (topic,) = _stats(node).topics or ()
    assert (topic.channels[0].depth, topic.channels[0].backend_depth) == (0, 0)


def test_a_snapshot_stands_still() -> None:
    node = Node()
    node.publish(b"x")
    before = _stats(node)
    node.publish(b"y")
    node.consumer(1)
    assert (before.topics or ())[0].depth == 1
    assert (before.topics or ())[0].channels == ()


def test_a_session_whose_channel_is_gone_but_whose_connection_is_not() -> None:
    """Between the deletion of a channel and the end of its connections /stats can be asked."""
    node = Node()
    node.consumer(1)
    node.consumer(1, channel=b"d").ask(command(b"PUB t", b"x"))
    node.topic().delete_channel("d")
    stats = _stats(node)
    assert _names(stats) == {"t": ["c"]}
    assert len(stats.producers or ()) == 1


def test_what_is_on_disk() -> None:
    node = Node(durability="fsync")
    for topic in (b"b", b"a", b"c#ephemeral"):
        node.client().send(command(b"PUB " + topic, b"x" * 100))
    node.turn()
    node.topic("a").log.damaged_records = 3  # type: ignore[union-attr, misc]
    node.topic("a").log.damaged_bytes = 70  # type: ignore[union-attr, misc]
    node.topic("a").set_durability("memory")
    a, b = node.broker.storage_stats()
    assert (a.topic_name, a.durability, a.segments, a.damaged_records, a.damaged_bytes) == ("a", "memory", 1, 3, 70)
    assert (b.topic_name, b.durability, b.segments, b.damaged_records) == ("b", "fsync", 1, 0)
    assert a.bytes == b.bytes > 100
    assert node.broker.storage_stats("b") == [b]
    assert node.broker.storage_stats("c#ephemeral") == node.broker.storage_stats("nope") == []
