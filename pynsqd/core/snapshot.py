"""From the live broker to the immutable snapshots of ``stats`` (PROTOCOL 2.5)."""

from operator import attrgetter
from typing import TYPE_CHECKING

from pynsqd.core.consumer import Consumer
from pynsqd.core.latency import merge, quantile_ns
from pynsqd.core.stats import BrokerStats, ChannelStats, ClientStats, Latency, StorageStats, TopicStats

if TYPE_CHECKING:
    from pynsqd.core.broker import Broker
    from pynsqd.core.channel import Channel
    from pynsqd.core.session import Session
    from pynsqd.core.topic import Topic


def snapshot(
    broker: "Broker", producers: list["Session"], topic: str, channel: str, include_clients: bool
) -> BrokerStats:
    """Return what /stats shows. An unknown topic gives no topics at all; an unknown channel leaves its topic out."""
    if topic and topic not in broker.topics:
        return BrokerStats(None, None)
    chosen = [broker.topics[topic]] if topic else [broker.topics[name] for name in sorted(broker.topics)]
    clients = {}
    if include_clients:
        clients = {session.consumer: _client(session, topic) for session in broker.sessions if session.consumer}
    topics = tuple(
        _topic(broker, one, channel, clients, include_clients)
        for one in chosen
        if not channel or channel in one.channels
    )
    shown = tuple(_client(session, topic) for session in producers) if include_clients else ()
    return BrokerStats(topics, shown or None)


def storage_snapshot(broker: "Broker", topic: str) -> list[StorageStats]:
    """Return what the topics have on disk, sorted by name; only that of ``topic`` unless that is empty."""
    shown = []
    for one in sorted(broker.topics.values(), key=attrgetter("name")):
        if one.log is not None and (not topic or one.name == topic):
            sizes = [size for _, size in one.log.live_segments()]
            damaged = one.log.damaged_records, one.log.damaged_bytes
            shown.append(StorageStats(one.name, one.durability, len(sizes), sum(sizes), *damaged))
    return shown


def _topic(
    broker: "Broker",
    topic: "Topic",
    channel: str,
    clients: dict[Consumer, ClientStats],
    include_clients: bool,
) -> TopicStats:
    histograms = [one.latency.buckets(broker.now_ns) for one in topic.channels.values() if one.latency is not None]
    return TopicStats(
        topic_name=topic.name,
        channels=tuple(
            _channel(broker, topic.channels[name], clients, include_clients)
            for name in sorted(topic.channels)
            if not channel or name == channel
        ),
        depth=topic.depth,
        backend_depth=topic.backend_depth,
        message_count=topic.message_count,
        message_bytes=topic.message_bytes,
        paused=topic.paused,
        e2e_processing_latency=_latency(broker, merge(histograms) if histograms else None),
    )


def _channel(
    broker: "Broker", channel: "Channel", clients: dict[Consumer, ClientStats], include_clients: bool
) -> ChannelStats:
    return ChannelStats(
        channel_name=channel.name,
        depth=channel.depth,
        backend_depth=channel.backend_depth,
        in_flight_count=channel.in_flight_count,
        deferred_count=len(channel.deferred),
        message_count=channel.message_count,
        requeue_count=channel.requeue_count,
        timeout_count=channel.timeout_count,
        client_count=len(channel.consumers),
        clients=tuple(clients[one] for one in channel.consumers) if include_clients else None,
        paused=channel.paused,
        e2e_processing_latency=_latency(
            broker, None if channel.latency is None else channel.latency.buckets(broker.now_ns)
        ),
    )


def _latency(broker: "Broker", buckets: dict[int, int] | None) -> Latency:
    if buckets is None:
        return Latency(0, None)
    quantiles = broker.options.e2e_processing_latency_percentiles
    return Latency(sum(buckets.values()), tuple((one, quantile_ns(buckets, one)) for one in quantiles))


def _client(session: "Session", topic: str) -> ClientStats:
    identity = session.identity
    consumer = session.consumer
    grant = session.grant
    security = session.security
    return ClientStats(
        client_id=identity.client_id,
        hostname=identity.hostname,
        version="V2",
        remote_address=session.remote_address,
        state=session.state,
        ready_count=consumer.rdy if consumer else 0,
        in_flight_count=len(consumer.in_flight) if consumer else 0,
        message_count=consumer.message_count if consumer else 0,
        finish_count=consumer.finish_count if consumer else 0,
        requeue_count=consumer.requeue_count if consumer else 0,
        connect_ts=session.connect_wall_ns // 1_000_000_000,
        sample_rate=identity.sample_rate,
        deflate=identity.deflate,
        snappy=identity.snappy,
        user_agent=identity.user_agent,
        authed=grant is not None,
        auth_identity=grant.identity if grant else "",
        auth_identity_url=grant.identity_url if grant else "",
        pub_counts=tuple((name, count) for name, count in session.published.items() if not topic or name == topic),
        tls=security is not None,
        tls_cipher_suite=security.cipher_suite if security else "",
        tls_version=security.version if security else "",
        tls_negotiated_protocol="",  # nothing is negotiated by ALPN, as in nsqd, where that is always mutual
        tls_negotiated_protocol_is_mutual=security is not None,
    )
