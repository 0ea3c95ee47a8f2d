"""Who offers what: registrations, producers and tombstones (PROTOCOL 5.2, 6). Pure; in memory only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pynsqd.wire.lookup_v1 import PeerInfo
from pynsqd.wire.names import is_ephemeral


@dataclass(slots=True, eq=False)
class Producer:
    """One identified node. ``registered`` has its channels by topic, ``tombstones`` when a topic's was set, in ns."""

    info: PeerInfo
    last_update_ns: int
    registered: dict[str, set[str]] = field(default_factory=dict)
    tombstones: dict[str, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The peer's ip:port, which is what nsqlookupd knows a producer by."""
        return self.info.remote_address

    @property
    def node(self) -> str:
        """The name under which /topic/tombstone knows the producer."""
        return f"{self.info.broadcast_address}:{self.info.http_port}"


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a lookupd knows. An inactive producer is connected, but has not pinged for too long."""

    topics: int
    channels: int
    active_producers: int
    inactive_producers: int
    tombstones: int


# A dict without values, for it keeps its order.
_Producers = dict[Producer, None]


class RegistrationDB:
    """All registrations, indexed by topic and by producer, so that no operation looks at more than it is about.

    A topic or channel outlives its producers until it is deleted over HTTP; an ephemeral one goes with the UNREGISTER
    of its last producer, and an ephemeral topic leaves its channels behind, as in nsqlookupd.
    """

    def __init__(self, inactive_producer_timeout_ns: int, tombstone_lifetime_ns: int) -> None:
        self._inactive_producer_timeout_ns = inactive_producer_timeout_ns
        self._tombstone_lifetime_ns = tombstone_lifetime_ns
        self._producers: _Producers = {}
        self._topics: dict[str, _Producers] = {}
        self._channels: dict[str, dict[str, _Producers]] = {}  # by topic and channel

    # ---- what nodes do

    def add_producer(self, info: PeerInfo, now_ns: int) -> Producer:
        """Add an identified node."""
        producer = Producer(info, now_ns)
        self._producers[producer] = None
        return producer

    def remove_producer(self, producer: Producer) -> None:
        """Forget a node that has disconnected; its topics and channels stay."""
        self._producers.pop(producer, None)
        for name in list(producer.registered):
            self._withdraw(producer, name)

    def register(self, producer: Producer, topic: str, channel: str = "") -> None:
        """Note that ``producer`` has the topic and, unless it is empty, the channel. Once more changes nothing."""
        self._topics.setdefault(topic, {})[producer] = None
        channels = producer.registered.setdefault(topic, set())
        if channel:
            self._channels.setdefault(topic, {}).setdefault(channel, {})[producer] = None
            channels.add(channel)

    def unregister(self, producer: Producer, topic: str, channel: str = "") -> None:
        """Take ``producer`` off the channel or, if that is empty, off the topic and all its channels."""
        if channel:
            self._unregister_channel(producer, topic, channel)
            return
        self._withdraw(producer, topic)
        if is_ephemeral(topic) and not self._topics.get(topic):
            self._topics.pop(topic, None)

    def _unregister_channel(self, producer: Producer, topic: str, channel: str) -> None:
        channels = self._channels.get(topic, {})
        if channel not in channels:
            return
        channels[channel].pop(producer, None)
        producer.registered.get(topic, set()).discard(channel)
        if is_ephemeral(channel) and not channels[channel]:
            del channels[channel]

    def _withdraw(self, producer: Producer, topic: str) -> None:
        for channel in producer.registered.pop(topic, ()):
            del self._channels[topic][channel][producer]
        self._topics.get(topic, {}).pop(producer, None)
        producer.tombstones.pop(topic, None)

    # ---- what operators do

    def create_topic(self, topic: str) -> None:
        """Add a topic without a producer, if it is not there."""
        self._topics.setdefault(topic, {})

    def create_channel(self, topic: str, channel: str) -> None:
        """Add a channel, and its topic, without a producer, if they are not there."""
        self.create_topic(topic)
        self._channels.setdefault(topic, {}).setdefault(channel, {})

    def delete_topic(self, topic: str) -> None:
        """Remove a topic with its channels and all registrations for them; nothing if there is none."""
        self._channels.pop(topic, None)
        for producer in self._topics.pop(topic, ()):
            del producer.registered[topic]
            producer.tombstones.pop(topic, None)

    def delete_channel(self, topic: str, channel: str) -> bool:
        """Remove a channel and the registrations for it; tell whether it was there."""
        producers = self._channels.get(topic, {}).pop(channel, None)
        if producers is None:
            return False
        for producer in producers:
            producer.registered[topic].discard(channel)
        return True

    def tombstone(self, topic: str, node: str, now_ns: int) -> None:
        """Hide from ``lookup`` the producers of ``topic`` whose ``node`` this is, for the tombstone lifetime."""
        for producer in self._topics.get(topic, ()):
            if producer.node == node:
                producer.tombstones[topic] = now_ns

    # ---- what clients ask

    def topics(self) -> list[str]:
        """Return the names of all topics, also of those without a producer."""
        return list(self._topics)

    def channels(self, topic: str) -> list[str]:
        """Return the channels of ``topic``; none for an unknown one."""
        return list(self._channels.get(topic, ()))

    def lookup(self, topic: str, now_ns: int) -> list[Producer] | None:
        """Return the active producers of ``topic`` that are not tombstoned for it, or None if it is unknown."""
        producers = self._topics.get(topic)
        if producers is None:
            return None
        return [
            producer
            for producer in producers
            if self._is_active(producer, now_ns) and not self.is_tombstoned(producer, topic, now_ns)
        ]

    def nodes(self, now_ns: int) -> list[Producer]:
        """Return the active producers, tombstoned or not."""
        return [producer for producer in self._producers if self._is_active(producer, now_ns)]

    def is_tombstoned(self, producer: Producer, topic: str, now_ns: int) -> bool:
        """Tell whether ``producer`` is hidden for ``topic`` now."""
        at_ns = producer.tombstones.get(topic)
        return at_ns is not None and now_ns - at_ns < self._tombstone_lifetime_ns

    def registrations(self) -> Iterator[tuple[str, list[tuple[Producer, int | None]]]]:
        """Go through all that has a producer, as ``<category>:<key>:<subkey>``, with when each was tombstoned in ns."""
        if self._producers:
            yield "client::", [(producer, None) for producer in self._producers]
        for topic, producers in self._topics.items():
            if producers:
                yield f"topic:{topic}:", [(producer, producer.tombstones.get(topic)) for producer in producers]
        for topic, channels in self._channels.items():
            for channel, producers in channels.items():
                if producers:
                    yield f"channel:{topic}:{channel}", [(producer, None) for producer in producers]

    def counts(self, now_ns: int) -> Counts:
        """Count what there is, in one look at every producer and topic."""
        active = sum(self._is_active(producer, now_ns) for producer in self._producers)
        tombstones = sum(
            self.is_tombstoned(producer, topic, now_ns) for producer in self._producers for topic in producer.tombstones
        )
        return Counts(
            topics=len(self._topics),
            channels=sum(map(len, self._channels.values())),
            active_producers=active,
            inactive_producers=len(self._producers) - active,
            tombstones=tombstones,
        )

    def _is_active(self, producer: Producer, now_ns: int) -> bool:
        return now_ns - producer.last_update_ns <= self._inactive_producer_timeout_ns
