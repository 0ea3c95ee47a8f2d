"""The broker: topics, sessions, and the turn."""

import pytest

from pynsqd.core.broker import Broker
from pynsqd.options import Options
from pynsqd.wire.errors import StartupError, StorageError
from tests.support.memory_logs import MemoryDeferred, MemoryLog, MemoryLogs
from tests.support.session_wire import OK, FailingLogs, Node, S, command, mpub


def test_topics_are_made_once_and_found() -> None:
    broker = Node().broker
    topic = broker.topic("t")
    assert broker.topic("t") is topic
    assert broker.find_topic("t") is topic
    assert broker.find_topic("u") is None
    broker.delete_topic("t")
    assert broker.find_topic("t") is None
    assert broker.topic("t") is not topic


def test_two_brokers_share_nothing() -> None:
    one, two = Node(), Node(id=2)
    one.publish(b"x")
    assert two.broker.topics == {}
    two.publish(b"y")
    assert one.consumer(1).bodies() == [b"x"]
    assert two.consumer(1).bodies() == [b"y"]


def test_ids_are_unique_across_the_topics_of_a_node() -> None:
    """DEVIATIONS: nsqd counts per topic."""
    node = Node()
    consumers = [node.consumer(100, topic=topic) for topic in (b"t", b"u", b"v")]
    client = node.client()
    client.send(
        b"".join(mpub(topic, [b"x"] * 20) + command(b"DPUB %b 0" % topic, b"y") for topic in (b"t", b"u", b"v"))
    )
    node.turn()
    ids = [message.id for consumer in consumers for message in consumer.messages()]
    assert len(ids) == len(set(ids)) == 63


def test_ids_grow_when_the_time_of_day_steps_back() -> None:
    node = Node()
    consumer = node.consumer(100)
    node.publish(b"a", b"b")
    node.wall_offset_ns -= 3600 * S
    node.publish(b"c")
    messages = consumer.messages()
    assert [message.id for message in messages] == sorted({message.id for message in messages})
    assert messages[2].timestamp_ns == node.wall_ns


def test_timeouts_do_not_follow_the_time_of_day() -> None:
    node = Node()
    consumer = node.consumer(1, msg_timeout=1000)
    node.publish(b"x")
    consumer.take()
    for step in (3600 * S, -7200 * S):
        node.wall_offset_ns += step
        node.turn()
        assert consumer.take() == []
    node.advance(s=1)
    assert consumer.bodies() == [b"x"]


def test_a_timeout_and_its_delivery_are_one_turn() -> None:
    node = Node()
    consumer = node.consumer(1, msg_timeout=1000)
    node.publish(b"x")
    consumer.take()
    node.clock.advance(s=1)
    node.broker.end_turn(node.now_ns, node.wall_ns)
    assert node.broker.take_output() == [consumer.session]
    assert len(consumer.session.take_output()) == 1


def test_a_publish_and_its_delivery_are_one_turn() -> None:
    node = Node()
    consumer = node.consumer(1)
    client = node.client()
    client.send(command(b"PUB t", b"x"))
    node.broker.end_turn(node.now_ns, node.wall_ns)
    assert consumer.session in node.broker.take_output()
    assert client.session.take_output() != []


def test_the_next_due_time_is_the_nearest() -> None:
    node = Node()
    assert node.broker.next_due_ns == 0
    consumer = node.consumer(1, msg_timeout=2000)
    assert node.broker.next_due_ns == node.now_ns + 30 * S
    node.publish(b"x")
    assert node.broker.next_due_ns == node.now_ns + 2 * S
    node.client().ask(command(b"DPUB t 500", b"y"))
    assert node.broker.next_due_ns == node.now_ns + S // 2
    consumer.drop()


def test_sessions_are_forgotten_when_they_are_gone() -> None:
    node = Node()
    clients = [node.client() for _ in range(3)]
    assert len(node.broker.sessions) == 3
    clients[1].drop()
    assert list(node.broker.sessions) == [clients[0].session, clients[2].session]
    clients[1].session.closed()  # twice is no error
    assert len(node.broker.sessions) == 2


def test_an_idle_turn_does_nothing() -> None:
    node = Node()
    node.consumer(1)
    node.turn()
    node.broker.end_turn(node.now_ns, node.wall_ns)
    assert node.broker.take_output() == []
    assert node.broker.take_changes() == []


def test_the_limits_are_the_options() -> None:
    options = Options(
        max_rdy_count=1,
        msg_timeout_ns=2,
        max_msg_timeout_ns=3,
        max_heartbeat_interval_ns=4,
        max_output_buffer_size=5,
        output_buffer_timeout_ns=6,
        min_output_buffer_timeout_ns=7,
        max_output_buffer_timeout_ns=8,
        max_deflate_level=9,
    )
    limits = Broker(options, MemoryLogs(), 0, 0).limits
    assert (limits.max_rdy_count, limits.msg_timeout_ns, limits.max_msg_timeout_ns) == (1, 2, 3)
    assert (limits.max_heartbeat_interval_ns, limits.max_output_buffer_size) == (4, 5)
    assert (limits.output_buffer_timeout_ns, limits.min_output_buffer_timeout_ns) == (6, 7)
    assert (limits.max_output_buffer_timeout_ns, limits.max_deflate_level) == (8, 9)
    assert (limits.tls, limits.deflate, limits.snappy, limits.auth_required) == (False, True, True, False)


def test_layers_are_offered_as_the_options_say() -> None:
    limits = Broker(Options(tls_cert="c", deflate=False, snappy=False), MemoryLogs(), 0, 0).limits
    assert (limits.tls, limits.deflate, limits.snappy) == (True, False, False)


def test_topics_that_fail_do_not_hold_up_the_others() -> None:
    logs = FailingLogs()
    logs.refuse_append("bad", "full")
    node = Node(logs)
    good, bad = node.client(), node.client()
    bad.send(command(b"PUB bad", b"x"))
    good.send(command(b"PUB good", b"x"))
    node.turn()
    assert good.take() == [OK]
    assert bad.closed
    assert node.topic("good").depth == 1
    assert node.topic("bad").depth == 0


@pytest.mark.parametrize("error", [StorageError("open deferred: too many open files"), StartupError("later version")])
def test_a_log_is_closed_if_its_deferred_messages_cannot_be_opened(error: Exception) -> None:
    class Log(MemoryLog):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    class Logs(MemoryLogs):
        def open_deferred(self, topic: str, known_serial: int = 0) -> MemoryDeferred:
            raise error

    logs = Logs()
    log = logs.logs["t"] = Log()
    broker = Node(logs).broker
    with pytest.raises(type(error)):
        broker.topic("t")
    assert (log.closed, broker.topics) == (1, {})


def test_a_deleted_topic_makes_nobody_ill() -> None:
    """An fsync or a probe in a thread may fail after the topic is gone, and would never be told that it is well."""
    broker = Node().broker
    topic = broker.topic("t")
    broker.report_failure(topic, StorageError("sync: input/output error"))
    assert broker.health == "NOK - sync: input/output error"
    broker.delete_topic("t")
    again = broker.topic("t")
    broker.report_failure(topic, StorageError("sync: input/output error"))
    assert broker.health == "OK"
    broker.report_failure(again, StorageError("full"))
    assert broker.health == "NOK - full"
