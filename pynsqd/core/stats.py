"""Immutable snapshots of the broker for /stats and statsd. Field order is nsqd's JSON order (PROTOCOL 2.5)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """End-to-end processing latency (publish to FIN) over the configured window."""

    count: int
    # (quantile in (0, 1], latency in ns) as configured; None when no percentiles are configured.
    percentiles: tuple[tuple[float, float], ...] | None


@dataclass(frozen=True, slots=True)
class ClientStats:
    """One V2 connection, as a consumer of a channel or as a producer."""

    client_id: str
    hostname: str
    version: str
    remote_address: str
    state: int
    ready_count: int
    in_flight_count: int
    message_count: int
    finish_count: int
    requeue_count: int
    connect_ts: int  # unix seconds
    sample_rate: int
    deflate: bool
    snappy: bool
    user_agent: str
    authed: bool
    auth_identity: str
    auth_identity_url: str
    pub_counts: tuple[tuple[str, int], ...]  # (topic, messages published), every topic
    tls: bool
    tls_cipher_suite: str
    tls_version: str
    tls_negotiated_protocol: str
    tls_negotiated_protocol_is_mutual: bool


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """One channel. ``depth`` is what waits; what is in flight or deferred is not in it."""

    channel_name: str
    depth: int
    backend_depth: int
    in_flight_count: int
    deferred_count: int
    message_count: int
    requeue_count: int
    timeout_count: int
    client_count: int
    clients: tuple[ClientStats, ...] | None  # None when clients were not asked for
    paused: bool
    e2e_processing_latency: Latency


@dataclass(frozen=True, slots=True)
class TopicStats:
    """One topic. ``depth`` is what its channels have not been given: no channel yet, or the topic is paused."""

    topic_name: str
    channels: tuple[ChannelStats, ...]  # sorted by name
    depth: int
    backend_depth: int
    message_count: int
    message_bytes: int
    paused: bool
    e2e_processing_latency: Latency


@dataclass(frozen=True, slots=True)
class StorageStats:
    """The files of one topic's log."""

    topic_name: str
    durability: str
    segments: int
    bytes: int
    damaged_records: int  # places that could not be read since the node started, and their bytes
    damaged_bytes: int


@dataclass(frozen=True, slots=True)
class BrokerStats:
    """The whole node. ``topics`` is None when a topic was asked for that does not exist, as in nsqd."""

    topics: tuple[TopicStats, ...] | None  # sorted by name
    producers: tuple[ClientStats, ...] | None  # None when there are none or clients were not asked for
