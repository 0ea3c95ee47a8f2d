"""One subscription: window, counters, latency samples."""

from pynsqd.core.latency import quantile_ns
from tests.support.session_wire import MS, Node, S


def test_counters() -> None:
    node = Node()
    client = node.consumer(10, msg_timeout=1000)
    node.publish(b"a", b"b", b"c", b"d")
    a, b, _, _ = client.messages()
    client.send(b"FIN " + a.id + b"\nREQ " + b.id + b" 60000\nFIN 0123456789abcdef\n")
    node.turn()
    client.take()
    consumer = client.session.consumer
    assert consumer is not None
    assert (consumer.message_count, consumer.finish_count, consumer.requeue_count) == (4, 1, 1)
    assert (consumer.window, len(consumer.in_flight)) == (8, 2)
    node.advance(s=1)  # two time out and come again
    assert (consumer.message_count, node.channel().timeout_count, node.channel().requeue_count) == (6, 2, 1)
    assert (consumer.finish_count, consumer.requeue_count) == (1, 1)


def _latency(node: Node) -> tuple[int, float]:
    window = node.channel().latency
    assert window is not None
    buckets = window.buckets(node.now_ns)
    return sum(buckets.values()), quantile_ns(buckets, 0.5)


def test_latency_is_publish_to_fin() -> None:
    node = Node(e2e_processing_latency_percentiles=(0.5,))
    client = node.consumer(10)
    node.publish(b"a")
    (message,) = client.messages()
    node.advance(ms=300)
    client.send(b"REQ " + message.id + b" 0\n")
    node.advance(ms=300)
    client.send(b"FIN " + message.id + b"\n")
    node.turn()
    count, median = _latency(node)
    assert count == 1
    assert 0.99 * 600 * MS <= median <= 1.01 * 600 * MS


def test_each_finished_message_is_one_sample() -> None:
    """Ids that are not in flight, or come twice in a run, add none."""
    node = Node(e2e_processing_latency_percentiles=(0.5,))
    client = node.consumer(20)
    node.publish(*[b"x"] * 10)
    ids = [message.id for message in client.messages()]
    odd = b"FIN 0123456789abcdef\n"
    fins = [b"FIN " + one + b"\n" for one in ids]
    client.send(odd + fins[0] + odd + fins[1] + fins[1] + fins[2] + odd + b"".join(fins[3:8]) + odd)
    node.turn()
    assert node.channel().in_flight_count == 2
    assert _latency(node)[0] == 8
    client.send(fins[8] + b"FIN " + ids[9] + b" general path\n")
    node.turn()
    assert _latency(node)[0] == 10
    assert client.session.consumer is not None
    assert client.session.consumer.finish_count == 10


def test_samples_leave_the_window() -> None:
    node = Node(e2e_processing_latency_percentiles=(0.5,), e2e_processing_latency_window_time_ns=10 * S)
    client = node.consumer(1)
    node.publish(b"a")
    (message,) = client.messages()
    client.send(b"FIN " + message.id + b"\n")
    node.turn()
    assert _latency(node)[0] == 1
    node.advance(s=11)
    assert _latency(node)[0] == 0


def test_without_percentiles_nothing_is_kept() -> None:
    node = Node()
    node.consumer(1)
    assert node.channel().latency is None


def test_requeueing_after_the_first_is_cut_out_leaves_the_rest_whole() -> None:
    node = Node()
    client = node.consumer(3)
    node.publish(b"a", b"bb", b"ccc")
    a, bb, ccc = client.messages()
    client.send(b"REQ " + bb.id + b" 5000\nTOUCH " + a.id + b"\nREQ " + ccc.id + b" 5000\n")
    node.turn()
    client.drop()
    node.turn()
    later = node.consumer(5)
    (again,) = later.messages()
    assert (again.body, again.attempts) == (b"a", 2)
    node.advance(s=5)
    assert [(message.body, message.attempts) for message in later.messages()] == [(b"bb", 2), (b"ccc", 2)]
