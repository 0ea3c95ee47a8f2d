"""GET /stats, as JSON and as text (PROTOCOL 2.5)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pynsqd.core.stats import BrokerStats, ChannelStats, ClientStats, Latency, TopicStats
from pynsqd.httpapi.publish import boolean
from pynsqd.runtime.duration import format_duration
from pynsqd.runtime.http import HttpRequest, Reply, Router, json_number, v1
from pynsqd.runtime.memory import memory_figures
from pynsqd.runtime.version import version_line
from pynsqd.wire.constants import NSQ_VERSION

if TYPE_CHECKING:
    from pynsqd.httpapi.node import Node

_SECOND_NS: Final = 1_000_000_000
_LATENCY_UNITS: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))
_CLIENT_FIELDS: Final = tuple(field.name for field in fields(ClientStats))
# Not shown unless there is something to show.
_OPTIONAL: Final = ("authed", "auth_identity", "auth_identity_url", "pub_counts")


class StatsApi:
    """The handler."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def add_routes(self, router: Router) -> None:
        """Add the route."""
        router.add("GET", "/stats", self.stats)

    async def stats(self, request: HttpRequest) -> Reply:
        """Show topics, channels, clients and memory; everything, one topic, or the channels of one name."""
        query = request.query()
        broker = self._node.turn.broker
        stats = broker.stats(
            query.get("topic", ""), query.get("channel", ""), boolean(query, "include_clients", absent=True)
        )
        memory = memory_figures() if boolean(query, "include_mem", absent=True) else None
        if query.get("format") == "json":
            shown = as_json(stats, broker.health, self._node.started_ns, memory)
            if broker.draining:
                shown["drain"] = self._drain()
            if boolean(query, "include_storage", absent=False):  # only when asked: some compare the rest literally
                shown["storage"] = [asdict(one) for one in broker.storage_stats(query.get("topic", ""))]
            return v1(shown)
        return v1("".join(as_text(stats, broker.health, self._node.started_ns, time.time_ns(), memory)))

    def _drain(self) -> dict[str, Any]:
        drain = self._node.drain
        deadline = None if drain.deadline_s is None else int(drain.deadline_s)
        return {"start_time": int(drain.began_s), "deadline": deadline, **asdict(drain.left())}


# ---- JSON


def as_json(stats: BrokerStats, health: str, started_ns: int, memory: dict[str, int] | None) -> dict[str, Any]:
    """Return what ``format=json`` shows, in nsqd's order, which some compare literally (PROCESS 8)."""
    shown: dict[str, Any] = {
        "version": NSQ_VERSION,
        "health": health,
        "start_time": started_ns // _SECOND_NS,
        "topics": None if stats.topics is None else [_topic_json(topic) for topic in stats.topics],
    }
    if memory is not None:
        shown["memory"] = memory
    shown["producers"] = _clients_json(stats.producers)
    return shown


def _topic_json(topic: TopicStats) -> dict[str, Any]:
    return {
        "topic_name": topic.topic_name,
        "channels": [_channel_json(channel) for channel in topic.channels],
        "depth": topic.depth,
        "backend_depth": topic.backend_depth,
        "message_count": topic.message_count,
        "message_bytes": topic.message_bytes,
        "paused": topic.paused,
        "e2e_processing_latency": _latency_json(topic.e2e_processing_latency),
    }


def _channel_json(channel: ChannelStats) -> dict[str, Any]:
    return {
        "channel_name": channel.channel_name,
        "depth": channel.depth,
        "backend_depth": channel.backend_depth,
        "in_flight_count": channel.in_flight_count,
        "deferred_count": channel.deferred_count,
        "message_count": channel.message_count,
        "requeue_count": channel.requeue_count,
        "timeout_count": channel.timeout_count,
        "client_count": channel.client_count,
        "clients": _clients_json(channel.clients),
        "paused": channel.paused,
        "e2e_processing_latency": _latency_json(channel.e2e_processing_latency),
    }


def _clients_json(clients: Sequence[ClientStats] | None) -> list[dict[str, Any]] | None:
    return None if clients is None else [_client_json(client) for client in clients]


def _client_json(client: ClientStats) -> dict[str, Any]:
    shown: dict[str, Any] = {name: getattr(client, name) for name in _CLIENT_FIELDS}
    shown["pub_counts"] = [{"topic": topic, "count": count} for topic, count in client.pub_counts]
    return {name: value for name, value in shown.items() if value or name not in _OPTIONAL}


def _latency_json(latency: Latency) -> dict[str, Any]:
    percentiles = latency.percentiles and [
        {"quantile": json_number(quantile), "value": json_number(value_ns)}
        for quantile, value_ns in latency.percentiles
    ]
    return {"count": latency.count, "percentiles": percentiles}


# ---- text


def as_text(
    stats: BrokerStats, health: str, started_ns: int, now_ns: int, memory: dict[str, int] | None
) -> Iterator[str]:
    """Yield the text page in pieces."""
    started = datetime.fromtimestamp(started_ns // _SECOND_NS).astimezone().isoformat().replace("+00:00", "Z")
    yield f"{version_line('nsqd')}\nstart_time {started}\nuptime {format_duration(now_ns - started_ns)}\n"
    yield f"\nHealth: {health}\n"
    if memory is not None:
        yield "\nMemory:\n"
        yield from (f"   {name:<25}\t{value}\n" for name, value in memory.items())
    yield "\nTopics:" if stats.topics else "\nTopics: None\n"
    for topic in stats.topics or ():
        yield from _topic_text(topic, now_ns)
    yield "\nProducers:\n" if stats.producers else "\nProducers: None\n"
    for producer in stats.producers or ():
        yield f"   {_client_text(producer, now_ns)}\n"


def _topic_text(topic: TopicStats, now_ns: int) -> Iterator[str]:
    yield (
        f"\n{'*P ' if topic.paused else '   '}[{topic.topic_name:<15}] depth: {topic.depth:<5} "
        f"be-depth: {topic.backend_depth:<5} msgs: {topic.message_count:<8} "
        f"e2e%: {_latency_text(topic.e2e_processing_latency)}\n"
    )
    for channel in topic.channels:
        yield (
            f"{'   *P ' if channel.paused else '      '}[{channel.channel_name:<25}] depth: {channel.depth:<5} "
            f"be-depth: {channel.backend_depth:<5} inflt: {channel.in_flight_count:<4} "
            f"def: {channel.deferred_count:<4} re-q: {channel.requeue_count:<5} timeout: {channel.timeout_count:<5} "
            f"msgs: {channel.message_count:<8} e2e%: {_latency_text(channel.e2e_processing_latency)}\n"
        )
        for client in channel.clients or ():
            yield f"        {_client_text(client, now_ns)}\n"


def _client_text(client: ClientStats, now_ns: int) -> str:
    port = client.remote_address.rpartition(":")[2] if ":" in client.remote_address else ""
    who = f"[{client.version} {f'{client.hostname}:{port} {client.user_agent}':<21}]"
    connected = format_duration(max(0, now_ns // _SECOND_NS - client.connect_ts) * _SECOND_NS)
    if client.pub_counts:
        total = sum(count for _, count in client.pub_counts)
        topics = ",".join(f"{topic}={count}" for topic, count in client.pub_counts)
        return f"{who} msgs: {total:<8} topics: {topics} connected: {connected}"
    return (
        f"{who} state: {client.state} inflt: {client.in_flight_count:<4} rdy: {client.ready_count:<4} "
        f"fin: {client.finish_count:<8} re-q: {client.requeue_count:<8} msgs: {client.message_count:<8} "
        f"connected: {connected}"
    )


def _latency_text(latency: Latency) -> str:
    return ", ".join(_human(value_ns) for _, value_ns in latency.percentiles or ())


def _human(value_ns: float) -> str:
    for size, unit in _LATENCY_UNITS:
        if value_ns > size:
            return f"{value_ns / size:.1f}{unit}"
    return f"{value_ns:.1f}ns"
