"""A topic: where messages wait, when they flow, and what goes with it (PROTOCOL 1.11, 1.13, 1.16)."""

import pytest

from pynsqd.core.changes import Change
from tests.support.session_wire import OK, Node, command, mpub


def _depths(node: Node, topic: str = "t") -> dict[str, int]:
    found = node.topic(topic)
    return {"": found.depth} | {name: channel.depth for name, channel in found.channels.items()}


# -- waiting and flowing ---------------------------------------------------------------------------------------------


def test_messages_wait_until_the_first_channel() -> None:
    node = Node()
    node.publish(b"a", b"b")
    node.publish(b"c")
    assert _depths(node) == {"": 3}
    assert node.consumer(10).bodies() == [b"a", b"b", b"c"]
    assert _depths(node) == {"": 0, "c": 0}
    late = node.consumer(10, channel=b"late")
    assert late.take() == []  # a further channel begins at the end
    node.publish(b"d")
    assert late.bodies() == [b"d"]


def test_each_channel_gets_every_message() -> None:
    node = Node()
    consumers = [node.consumer(100, channel=b"c%d" % number) for number in range(5)]
    node.publish(b"a", b"b")
    node.publish(b"c")
    ids = [[message.id for message in consumer.messages()] for consumer in consumers]
    assert [len(one) for one in ids] == [3] * 5
    assert len({tuple(one) for one in ids}) == 1  # the same ids in each


def test_channels_do_not_disturb_each_other() -> None:
    node = Node()
    one = node.consumer(1, channel=b"one")
    two = node.consumer(1, channel=b"two")
    node.publish(b"x")
    (message,) = one.messages()
    one.send(b"REQ " + message.id + b" 0\n")
    node.turn()
    assert [again.attempts for again in one.messages()] == [2]
    assert [again.attempts for again in two.messages()] == [1]


def test_a_paused_topic_keeps_messages_and_its_channels_go_on() -> None:
    node = Node()
    consumer = node.consumer(1)
    node.publish(b"a", b"b")
    node.topic().pause()
    node.publish(b"c")
    node.client().ask(command(b"DPUB t 100", b"d"))
    assert _depths(node) == {"": 2, "c": 1}
    (first,) = consumer.messages()
    consumer.send(b"RDY 10\nFIN " + first.id + b"\n")
    node.turn()
    assert consumer.bodies() == [b"b"]
    node.advance(ms=60)
    node.topic().unpause()
    node.turn()
    assert consumer.bodies() == [b"c"]
    assert _depths(node) == {"": 0, "c": 0}
    node.advance(ms=40)  # DEVIATIONS: the delay counts from the publish
    assert consumer.bodies() == [b"d"]


def test_a_pause_in_the_turn_of_a_publish_holds_it() -> None:
    node = Node()
    consumer = node.consumer(10)
    client = node.client()
    client.send(command(b"PUB t", b"x"))
    node.topic().pause()
    node.turn()
    assert client.take() == [OK]
    assert consumer.take() == []
    assert _depths(node) == {"": 1, "c": 0}


def test_a_channel_made_on_a_paused_topic_gets_what_waits_when_it_ends() -> None:
    node = Node()
    node.publish(b"a")
    node.topic().pause()
    first, second = node.consumer(10, channel=b"one"), node.consumer(10, channel=b"two")
    assert (first.take(), second.take()) == ([], [])
    node.topic().unpause()
    node.turn()
    assert (first.bodies(), second.bodies()) == ([b"a"], [b"a"])


def test_a_new_topic_is_held_until_it_is_released() -> None:
    node = Node()
    node.broker.hold_new_topics = True
    consumer = node.consumer(10)
    node.publish(b"a")
    node.client().ask(command(b"DPUB t 0", b"b"))
    assert consumer.take() == []
    assert node.topic().held
    other = node.topic().channel("from-lookupd")
    node.topic().release()
    node.turn()
    assert consumer.bodies() == [b"a", b"b"]
    assert other.depth == 2
    assert node.topic().depth == 0


def test_unpausing_does_not_release_nor_the_other_way_round() -> None:
    node = Node()
    node.broker.hold_new_topics = True
    consumer = node.consumer(10)
    node.publish(b"a")
    node.topic().pause()
    node.topic().release()
    node.turn()
    assert consumer.take() == []
    node.topic().held = True
    node.topic().unpause()
    node.turn()
    assert consumer.take() == []
    node.topic().release()
    node.turn()
    assert consumer.bodies() == [b"a"]


def test_a_deferred_message_that_waited_past_its_time_comes_at_once() -> None:
    node = Node()
    node.client().ask(command(b"DPUB t 100", b"x"))
    assert _depths(node) == {"": 1}
    node.advance(s=1)
    assert _depths(node) == {"": 1}
    assert node.consumer(1).bodies() == [b"x"]


def test_empty_drops_what_waits_and_leaves_the_channels() -> None:
    node = Node()
    node.client().ask(b"SUB t c\n")
    node.publish(b"a")
    node.topic().pause()
    node.publish(b"b")
    node.client().ask(command(b"DPUB t 100", b"c"))
    node.topic().empty()
    assert _depths(node) == {"": 0, "c": 1}
    node.topic().unpause()
    node.advance(s=1)
    assert _depths(node) == {"": 0, "c": 1}


def test_what_was_emptied_does_not_come_back_to_a_channel_that_is_behind() -> None:
    """The channel has read the log up to the pause; the topic drops what came after it."""
    node = Node(mem_queue_size=1)
    client = node.consumer(0)
    for body in (b"a", b"b", b"c"):
        node.publish(body)
    node.topic().pause()
    client.send(b"RDY 10\n")
    node.turn()
    assert client.bodies() == [b"a", b"b", b"c"]
    node.publish(b"dropped", b"dropped too")
    node.topic().empty()
    assert _depths(node) == {"": 0, "c": 0}
    client.send(b"RDY 11\n")
    node.turn()
    node.topic().unpause()
    node.publish(b"d")
    assert client.bodies() == [b"d"]
    assert _depths(node) == {"": 0, "c": 0}
    assert node.channel().message_count == 4


# -- counts ----------------------------------------------------------------------------------------------------------


def test_counts_of_messages_and_bytes() -> None:
    node = Node()
    node.client().ask(b"SUB t c\n")
    node.client().ask(command(b"PUB t", b"abc") + mpub(b"t", [b"de", b"f"]) + command(b"DPUB t 60000", b"ghij"))
    topic = node.topic()
    assert (topic.message_count, topic.message_bytes) == (4, 10)
    assert (node.channel().message_count, node.channel().depth, len(node.channel().deferred)) == (4, 3, 1)


# -- deletion --------------------------------------------------------------------------------------------------------


def test_deleting_a_channel_closes_its_clients_without_a_frame() -> None:
    node = Node()
    gone = node.consumer(10)
    stays = node.consumer(10, channel=b"d")
    node.publish(b"x")
    gone.take()
    stays.take()
    node.topic().delete_channel("c")
    node.turn()
    assert (gone.take(), gone.closed) == ([], True)
    assert (stays.take(), stays.closed) == ([], False)
    assert list(node.topic().channels) == ["d"]
    node.publish(b"y")
    assert stays.bodies() == [b"y"]


def test_a_channel_made_again_is_empty() -> None:
    node = Node()
    node.client().ask(b"SUB t c\n")
    node.publish(b"x")
    node.topic().delete_channel("c")
    node.turn()
    assert node.consumer(10).take() == []
    node.publish(b"y")
    assert node.channel().message_count == 1


def test_deleting_a_topic_closes_consumers_and_keeps_producers() -> None:
    node = Node()
    producer = node.client()
    producer.ask(command(b"PUB t", b"x"))
    consumers = [node.consumer(1), node.consumer(1, channel=b"d")]
    [consumer.take() for consumer in consumers]
    node.broker.delete_topic("t")
    node.turn()
    assert [(consumer.take(), consumer.closed) for consumer in consumers] == [([], True), ([], True)]
    assert node.broker.topics == {}
    assert producer.ask(command(b"PUB t", b"y")) == [OK]  # makes it again
    assert _depths(node) == {"": 1}


def test_deleting_in_the_turn_of_a_delivery() -> None:
    node = Node()
    consumer = node.consumer(10)
    client = node.client()
    client.send(command(b"PUB t", b"x"))
    node.broker.end_turn(node.now_ns, node.wall_ns)
    node.broker.delete_topic("t")
    node.turn()
    assert consumer.closed
    assert client.take() == [OK]


def test_a_paused_topic_can_be_deleted() -> None:
    node = Node()
    node.consumer(1)
    node.topic().pause()
    node.publish(b"x")
    node.broker.delete_topic("t")
    node.turn()
    assert node.broker.find_topic("t") is None


# -- ephemeral -------------------------------------------------------------------------------------------------------


def test_an_ephemeral_topic_goes_with_its_last_channel() -> None:
    node = Node()
    one = node.consumer(1, topic=b"t#ephemeral", channel=b"one")
    two = node.consumer(1, topic=b"t#ephemeral", channel=b"two#ephemeral")
    two.drop()
    node.turn()
    assert list(node.topic("t#ephemeral").channels) == ["one"]
    one.drop()
    node.turn()
    assert list(node.topic("t#ephemeral").channels) == ["one"]  # a normal channel survives its clients
    node.topic("t#ephemeral").delete_channel("one")
    node.turn()
    assert node.broker.topics == {}


def test_an_ephemeral_topic_without_a_channel_stays() -> None:
    node = Node()
    node.publish(b"a", topic=b"t#ephemeral")
    node.advance(s=600)
    assert node.topic("t#ephemeral").depth == 1


@pytest.mark.parametrize(("size", "limit"), [(5, 5), (0, 100)])
def test_an_ephemeral_topic_drops_what_does_not_fit(size: int, limit: int) -> None:
    """The publisher is told OK all the same. DEVIATIONS: with --mem-queue-size 0 there is a small queue always."""
    node = Node(mem_queue_size=size)
    for start in range(0, 200, 3):
        node.publish(*[b"%d" % number for number in range(start, start + 3)], topic=b"t#ephemeral")
    node.client().ask(command(b"DPUB t#ephemeral 10", b"x"))
    topic = node.topic("t#ephemeral")
    assert (topic.depth, topic.message_count) == (limit, 202)
    consumer = node.consumer(300, topic=b"t#ephemeral")
    assert consumer.bodies() == [b"%d" % number for number in range(limit)]


def test_a_normal_topic_drops_nothing() -> None:
    node = Node(mem_queue_size=5)
    node.publish(*[b"x"] * 50)
    assert _depths(node) == {"": 50}
    assert node.consumer(2500).bodies() == [b"x"] * 50


# -- changes ---------------------------------------------------------------------------------------------------------


def test_changes_are_noted_in_order() -> None:
    node = Node()
    node.publish(b"x")
    node.client().ask(b"SUB t c\n")
    node.topic().pause()
    node.channel().pause()
    node.channel().unpause()
    node.topic().unpause()
    node.topic().channel("c")  # there already
    node.topic().channel("d")
    node.topic().delete_channel("c")
    node.broker.delete_topic("t")
    node.turn()
    assert node.changes == [
        Change("topic_created", "t"),
        Change("channel_created", "t", "c"),
        Change("paused", "t"),
        Change("paused", "t", "c"),
        Change("unpaused", "t", "c"),
        Change("unpaused", "t"),
        Change("channel_created", "t", "d"),
        Change("channel_deleted", "t", "c"),
        Change("channel_deleted", "t", "d"),
        Change("topic_deleted", "t"),
    ]
    assert node.broker.take_changes() == []


def test_an_ephemeral_topic_that_goes_is_noted() -> None:
    node = Node()
    client = node.consumer(1, topic=b"t#ephemeral", channel=b"c#ephemeral")
    node.changes.clear()
    client.drop()
    node.turn()
    assert node.changes == [
        Change("channel_deleted", "t#ephemeral", "c#ephemeral"),
        Change("topic_deleted", "t#ephemeral"),
    ]
