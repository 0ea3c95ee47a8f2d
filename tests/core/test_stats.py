"""The snapshots are in nsqd's JSON order, which some scripts compare literally (PROTOCOL 2.5, PROCESS 8)."""

from dataclasses import fields

import pytest

from pynsqd.core.stats import ChannelStats, ClientStats, Latency, TopicStats


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            TopicStats,
            "topic_name channels depth backend_depth message_count message_bytes paused e2e_processing_latency",
        ),
        (
            ChannelStats,
            "channel_name depth backend_depth in_flight_count deferred_count message_count requeue_count timeout_count "
            "client_count clients paused e2e_processing_latency",
        ),
        (
            ClientStats,
            "client_id hostname version remote_address state ready_count in_flight_count message_count finish_count "
            "requeue_count connect_ts sample_rate deflate snappy user_agent authed auth_identity auth_identity_url "
            "pub_counts tls tls_cipher_suite tls_version tls_negotiated_protocol tls_negotiated_protocol_is_mutual",
        ),
        (Latency, "count percentiles"),
    ],
)
def test_field_order(kind: type, names: str) -> None:
    assert [field.name for field in fields(kind)] == names.split()
