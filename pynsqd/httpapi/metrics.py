"""GET /metrics: the node's figures for Prometheus.

Nothing is counted for it per message: what it shows is counted anyway, or is looked at when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio.lowlevel

from pynsqd.runtime.http import HttpRequest, Reply, Router, plain
from pynsqd.runtime.metrics import CONTENT_TYPE, PROCESS, Metric, Page, add_build, add_process, labels

if TYPE_CHECKING:
    from pynsqd.core.channel import Channel
    from pynsqd.core.topic import Topic
    from pynsqd.httpapi.node import Node

# So many topics and channels are looked at, in about a millisecond, before the loop gets its turn.
_AT_ONCE: Final = 100

BUILD: Final = Metric("pynsqd_build_info", "gauge", "Always 1; the labels tell the versions.")
HEALTHY: Final = Metric("pynsqd_storage_healthy", "gauge", "1, or 0 while the storage fails and publishes are refused.")
DRAINING: Final = Metric("pynsqd_draining", "gauge", "1 from POST /drain or SIGTERM on, else 0.")
REFUSED: Final = Metric(
    "pynsqd_publishes_refused_total",
    "counter",
    "Publishes refused: the storage failed, or the node drained.",
)
CONNECTIONS: Final = Metric("pynsqd_connections", "gauge", "Open connections of clients.")
CONNECTED: Final = Metric("pynsqd_connections_opened_total", "counter", "Connections that clients have opened.")
REFUSED_CONNECTIONS: Final = Metric(
    "pynsqd_connections_refused_total", "counter", "Connections refused because of --max-connections."
)
LOOKUPD: Final = Metric("pynsqd_lookupd_connected", "gauge", "1 while there is a connection to this lookupd, else 0.")
MEMORY: Final = Metric("pynsqd_memory_queue_bytes", "gauge", "Messages that wait in memory.")
MEMORY_LIMIT: Final = Metric("pynsqd_memory_queue_limit_bytes", "gauge", "--mem-queue-bytes.")
LAG: Final = Metric("pynsqd_event_loop_lag_seconds", "histogram", "How late the event loop is, four times a second.")
APPEND: Final = Metric("pynsqd_log_append_seconds", "histogram", "Time of an append to a log, of every eighth.")
FSYNC: Final = Metric("pynsqd_log_fsync_seconds", "histogram", "Time of an fsync of a topic's log.")
NODE: Final = (
    BUILD,
    HEALTHY,
    DRAINING,
    REFUSED,
    CONNECTIONS,
    CONNECTED,
    REFUSED_CONNECTIONS,
    LOOKUPD,
    MEMORY,
    MEMORY_LIMIT,
    LAG,
    APPEND,
    FSYNC,
    *PROCESS,
)

TOPIC_AGE: Final = Metric(
    "pynsqd_topic_oldest_waiting_age_seconds",
    "gauge",
    "Age of the oldest message that no channel was given, or 0.",
)
TOPIC: Final[tuple[tuple[Metric, Callable[[Topic], float]], ...]] = (
    (
        Metric("pynsqd_topic_messages_total", "counter", "Messages published since the start."),
        lambda topic: topic.message_count,
    ),
    (
        Metric("pynsqd_topic_message_bytes_total", "counter", "Bytes of their bodies."),
        lambda topic: topic.message_bytes,
    ),
    (Metric("pynsqd_topic_depth", "gauge", "Messages that no channel was given."), lambda topic: topic.depth),
    (
        Metric("pynsqd_topic_backend_depth", "gauge", "Those of them that are on disk only."),
        lambda topic: topic.backend_depth,
    ),
    (Metric("pynsqd_topic_paused", "gauge", "1 while the topic is paused, else 0."), lambda topic: int(topic.paused)),
)
LOG_BYTES: Final = Metric("pynsqd_topic_log_bytes", "gauge", "Size of the topic's log.")
DAMAGED: Final = Metric(
    "pynsqd_topic_damaged_records_total", "counter", "Places in the log that could not be read since the start."
)

CHANNEL_AGE: Final = Metric(
    "pynsqd_channel_oldest_waiting_age_seconds", "gauge", "Age of the message that is delivered next, or 0."
)
CHANNEL: Final[tuple[tuple[Metric, Callable[[Channel], float]], ...]] = (
    (Metric("pynsqd_channel_depth", "gauge", "Messages that wait to be delivered."), lambda channel: channel.depth),
    (
        Metric("pynsqd_channel_backend_depth", "gauge", "Those of them that are on disk only."),
        lambda channel: channel.backend_depth,
    ),
    (
        Metric("pynsqd_channel_in_flight", "gauge", "Messages delivered and not finished."),
        lambda channel: channel.in_flight_count,
    ),
    (
        Metric("pynsqd_channel_deferred", "gauge", "Messages that are not due yet."),
        lambda channel: len(channel.deferred),
    ),
    (Metric("pynsqd_channel_consumers", "gauge", "Clients that subscribe."), lambda channel: len(channel.consumers)),
    (
        Metric("pynsqd_channel_paused", "gauge", "1 while the channel is paused, else 0."),
        lambda channel: int(channel.paused),
    ),
    (
        Metric("pynsqd_channel_messages_total", "counter", "Messages that came from the topic."),
        lambda channel: channel.message_count,
    ),
    (
        Metric("pynsqd_channel_deliveries_total", "counter", "Messages sent to consumers, each time they were."),
        lambda channel: channel.delivery_count,
    ),
    (
        Metric("pynsqd_channel_finished_total", "counter", "Messages that consumers have finished."),
        lambda channel: channel.finish_count,
    ),
    (
        Metric("pynsqd_channel_requeued_total", "counter", "Messages that consumers have given back by REQ."),
        lambda channel: channel.requeue_count,
    ),
    (
        Metric("pynsqd_channel_timed_out_total", "counter", "Messages that came back because their time was over."),
        lambda channel: channel.timeout_count,
    ),
)

METRICS: Final = (
    *NODE,
    *(metric for metric, _ in TOPIC),
    TOPIC_AGE,
    LOG_BYTES,
    DAMAGED,
    *(metric for metric, _ in CHANNEL),
    CHANNEL_AGE,
)


class MetricsApi:
    """The handler."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._one_at_a_time = anyio.Lock()

    def add_routes(self, router: Router) -> None:
        """Add the route."""
        router.add("GET", "/metrics", self.metrics)

    async def metrics(self, request: HttpRequest) -> Reply:
        """Show all metrics. A large node is looked at in pieces; messages go on in between."""
        async with self._one_at_a_time:
            page = Page()
            self._add_node(page)
            for done, _ in enumerate(self._add_topics(page), 1):
                if not done % _AT_ONCE:
                    await anyio.lowlevel.checkpoint()
            reply = plain(page.text())
        return replace(reply, headers=(("Content-Type", CONTENT_TYPE),))

    def _add_node(self, page: Page) -> None:
        node, broker = self._node, self._node.turn.broker
        add_build(page, BUILD)
        page.add(HEALTHY, int(broker.health == "OK"))
        page.add(DRAINING, int(broker.draining))
        page.add(REFUSED, broker.refused_count)
        for protocol, now, ever, refused in (
            ("tcp", len(broker.sessions), broker.session_count, node.tcp_door.refused),
            ("http", node.ingest.open_now, node.ingest.connection_count, node.ingest.door.refused),
        ):
            page.add(CONNECTIONS, now, labels(protocol=protocol))
            page.add(CONNECTED, ever, labels(protocol=protocol))
            page.add(REFUSED_CONNECTIONS, refused, labels(protocol=protocol))
        for address, connected in node.peers.connected().items():
            page.add(LOOKUPD, int(connected), labels(lookupd=address))
        page.add(MEMORY, broker.buffered_bytes)
        page.add(MEMORY_LIMIT, broker.memory_bytes)
        page.add_histogram(LAG, node.loop_lag)
        page.add_histogram(APPEND, node.timings.appends)
        page.add_histogram(FSYNC, node.timings.syncs)
        add_process(page, node.started_ns)

    def _add_topics(self, page: Page) -> Iterator[None]:
        """Add topics and channels, and yield after each. Those that come or go meanwhile may be there or not."""
        for topic in list(self._node.turn.broker.topics.values()):
            labelled = labels(topic=topic.name)
            for metric, value in TOPIC:
                page.add(metric, value(topic), labelled)
            page.add(TOPIC_AGE, self._age_s(topic.next_published_ns), labelled)
            if topic.log is not None:
                page.add(LOG_BYTES, sum(size for _, size in topic.log.live_segments()), labelled)
                page.add(DAMAGED, topic.log.damaged_records, labelled)
            yield
            for channel in list(topic.channels.values()):
                self._add_channel(page, channel, labels(topic=topic.name, channel=channel.name))
                yield

    def _add_channel(self, page: Page, channel: Channel, labelled: str) -> None:
        for metric, value in CHANNEL:
            page.add(metric, value(channel), labelled)
        page.add(CHANNEL_AGE, self._age_s(channel.next_published_ns), labelled)

    def _age_s(self, published_ns: int) -> float:
        """Return how long ago that was; 0 for 0, which means that there is nothing, and for what is to come."""
        turn = self._node.turn
        return max(0, turn.broker.wall_ns(turn.now_ns()) - published_ns) / 1e9 if published_ns else 0
