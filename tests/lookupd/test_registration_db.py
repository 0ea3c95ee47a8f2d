"""lookupd/registration_db: registrations, producers, tombstones (PROTOCOL 5.2, 6)."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from lookupd.registration_db import Producer, RegistrationDB
from pynsqd.wire.lookup_v1 import PeerInfo

SECOND = 1_000_000_000
INACTIVE = 300 * SECOND
LIFETIME = 45 * SECOND


def database() -> RegistrationDB:
    return RegistrationDB(INACTIVE, LIFETIME)


def add(db: RegistrationDB, name: str = "n", now_ns: int = 0) -> Producer:
    return db.add_producer(PeerInfo(f"10.0.0.1:{name}", "host", name, 4150, 4151, "1.3.0"), now_ns)


def test_register_adds_topic_and_channel() -> None:
    db = database()
    node = add(db)
    db.register(node, "t", "c")
    db.register(node, "u")
    assert db.topics() == ["t", "u"]
    assert db.channels("t") == ["c"]
    assert db.channels("u") == []
    assert db.channels("unknown") == []
    assert db.lookup("t", 0) == [node]
    assert db.lookup("unknown", 0) is None


def test_unregister_channel_keeps_its_key_unless_ephemeral() -> None:
    db = database()
    node, other = add(db), add(db, "m")
    for channel in ("c", "x#ephemeral"):
        db.register(node, "t", channel)
        db.register(other, "t", channel)
        db.unregister(node, "t", channel)
    assert db.channels("t") == ["c", "x#ephemeral"]
    assert db.lookup("t", 0) == [node, other]
    db.unregister(other, "t", "c")
    db.unregister(other, "t", "x#ephemeral")
    assert db.channels("t") == ["c"]


def test_unregister_topic_takes_its_channels() -> None:
    db = database()
    node, other = add(db), add(db, "m")
    db.register(node, "t", "c")
    db.register(other, "t", "c")
    db.register(node, "e#ephemeral", "c")
    db.unregister(node, "t")
    db.unregister(node, "e#ephemeral")
    assert db.lookup("t", 0) == [other]
    assert db.channels("t") == ["c"]
    assert db.topics() == ["t"]
    assert db.channels("e#ephemeral") == ["c"]  # though the topic is gone
    assert db.lookup("e#ephemeral", 0) is None
    assert dict(db.registrations())["channel:t:c"] == [(other, None)]
    assert not node.registered


def test_unregister_what_is_not_there() -> None:
    db = database()
    node = add(db)
    db.unregister(node, "nope")
    db.unregister(node, "nope", "nope")
    db.create_channel("t", "c")
    db.unregister(node, "t")
    db.unregister(node, "t", "nope")
    assert db.topics() == ["t"]
    assert db.channels("t") == ["c"]


def test_disconnect_removes_the_producer_and_no_key() -> None:
    db = database()
    node, other = add(db), add(db, "m")
    for name in ("t", "e#ephemeral"):
        db.register(node, name, "c#ephemeral")
    db.register(other, "t")
    db.remove_producer(node)
    assert db.topics() == ["t", "e#ephemeral"]
    assert db.channels("t") == ["c#ephemeral"]
    assert db.lookup("t", 0) == [other]
    assert db.lookup("e#ephemeral", 0) == []
    assert db.nodes(0) == [other]
    db.remove_producer(node)


def test_delete_topic_and_channel() -> None:
    db = database()
    node = add(db)
    db.register(node, "t", "c")
    db.register(node, "t", "d")
    assert db.delete_channel("t", "c")
    assert not db.delete_channel("t", "c")
    assert not db.delete_channel("nope", "c")
    assert node.registered == {"t": {"d"}}
    db.delete_topic("t")
    db.delete_topic("t")
    assert db.topics() == []
    assert not node.registered
    db.register(node, "t", "c")
    assert db.lookup("t", 0) == [node]


def test_inactive_producers_are_left_out() -> None:
    db = database()
    node = add(db, now_ns=SECOND)
    db.register(node, "t")
    assert db.lookup("t", SECOND + INACTIVE) == [node]
    assert db.nodes(SECOND + INACTIVE) == [node]
    assert db.lookup("t", SECOND + INACTIVE + 1) == []
    assert db.nodes(SECOND + INACTIVE + 1) == []
    node.last_update_ns += 1
    assert db.lookup("t", SECOND + INACTIVE + 1) == [node]


def test_tombstone_hides_for_one_topic_for_its_lifetime() -> None:
    db = database()
    node, other = add(db), add(db, "m")
    for name in ("t", "u"):
        db.register(node, name)
        db.register(other, name)
    db.tombstone("t", "n:4151", 10)
    db.tombstone("t", "nobody:4151", 10)
    db.tombstone("nope", "n:4151", 10)
    assert db.lookup("t", 10) == [other]
    assert db.lookup("u", 10) == [node, other]
    assert db.nodes(10) == [node, other]
    assert db.is_tombstoned(node, "t", 10)
    assert not db.is_tombstoned(node, "u", 10)
    assert db.lookup("t", 10 + LIFETIME - 1) == [other]
    assert db.lookup("t", 10 + LIFETIME) == [node, other]
    assert dict(db.registrations())["topic:t:"] == [(node, 10), (other, None)]


def test_tombstone_outlives_register_but_not_unregister() -> None:
    db = database()
    node = add(db)
    db.register(node, "t")
    db.tombstone("t", "n:4151", 10)
    db.register(node, "t", "c")
    assert db.lookup("t", 11) == []
    db.unregister(node, "t")
    db.register(node, "t")
    assert db.lookup("t", 11) == [node]


def test_registrations_leave_out_keys_without_producers() -> None:
    db = database()
    db.create_channel("t", "c")
    assert list(db.registrations()) == []
    node = add(db)
    db.register(node, "t", "d")
    assert list(db.registrations()) == [
        ("client::", [(node, None)]),
        ("topic:t:", [(node, None)]),
        ("channel:t:d", [(node, None)]),
    ]


TOPICS = st.sampled_from(["a", "b", "e#ephemeral"])
CHANNELS = st.sampled_from(["", "c", "d", "x#ephemeral"])


class Machine(RuleBasedStateMachine):
    """Any sequence of operations, held against plain sets of what should be registered."""

    producers = Bundle("producers")

    @initialize()
    def start(self) -> None:
        self.db = database()
        self.count = 0
        self.registered: dict[Producer, set[tuple[str, str]]] = {}

    @rule(target=producers)
    def identify(self) -> Producer:
        self.count += 1
        producer = add(self.db, str(self.count))
        self.registered[producer] = set()
        return producer

    @rule(producer=producers, topic=TOPICS, channel=CHANNELS)
    def register(self, producer: Producer, topic: str, channel: str) -> None:
        self.db.register(producer, topic, channel)
        self.registered[producer] |= {(topic, ""), (topic, channel)}

    @rule(producer=producers, topic=TOPICS, channel=CHANNELS)
    def unregister(self, producer: Producer, topic: str, channel: str) -> None:
        self.db.unregister(producer, topic, channel)
        mine = self.registered[producer]
        mine -= {(topic, channel)} if channel else {entry for entry in mine if entry[0] == topic}

    @rule(producer=consumes(producers))
    def disconnect(self, producer: Producer) -> None:
        self.db.remove_producer(producer)
        del self.registered[producer]

    @rule(topic=TOPICS)
    def delete_topic(self, topic: str) -> None:
        self.db.delete_topic(topic)
        for mine in self.registered.values():
            mine -= {entry for entry in mine if entry[0] == topic}

    @rule(topic=TOPICS, channel=CHANNELS.filter(bool))
    def delete_channel(self, topic: str, channel: str) -> None:
        self.db.delete_channel(topic, channel)
        for mine in self.registered.values():
            mine.discard((topic, channel))

    @invariant()
    def agrees(self) -> None:
        expected: dict[str, set[Producer]] = {}
        for producer, mine in self.registered.items():
            expected.setdefault("client::", set()).add(producer)
            for topic, channel in mine:
                key = f"channel:{topic}:{channel}" if channel else f"topic:{topic}:"
                expected.setdefault(key, set()).add(producer)
        found = {key: {producer for producer, _ in entries} for key, entries in self.db.registrations()}
        assert found == expected
        for producer, mine in self.registered.items():
            indexed = {(topic, channel) for topic, names in producer.registered.items() for channel in {"", *names}}
            assert indexed == mine


TestAnySequence = Machine.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
