"""Pushes the figures of the node to statsd over UDP (PROTOCOL 3.11)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import anyio

from pynsqd.core.stats import BrokerStats, ChannelStats, Latency, TopicStats
from pynsqd.runtime.memory import memory_figures
from pynsqd.wire.names import is_ephemeral

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from pynsqd.core.broker import Broker
    from pynsqd.options import Options

_NOTHING: Final = BrokerStats((), None)
# The datagrams of one push are spread over the interval less this, so that they have left before the next.
_MARGIN_S: Final = 1.0


async def push_forever(broker: Broker, options: Options, prefix: str, log: FilteringBoundLogger) -> None:
    """Push every ``options.statsd_interval_ns`` until cancelled; names begin with ``prefix``, expanded already."""
    interval_s = options.statsd_interval_ns / 1e9
    stats, memory = _NOTHING, dict[str, int]()
    reachable = True
    due = anyio.current_time()
    while True:
        due += interval_s
        await anyio.sleep_until(due)
        before, stats = stats, broker.stats(include_clients=False)
        lines = list(broker_lines(before, stats, exclude_ephemeral=options.statsd_exclude_ephemeral))
        if options.statsd_mem_stats:
            earlier, memory = memory, memory_figures()
            lines += memory_lines(earlier, memory)
        try:
            await _send(options.statsd_address, pack(prefix, lines, options.statsd_udp_packet_size), interval_s)
            reachable = True
        except OSError as error:
            if reachable:
                log.error("statsd cannot be reached", address=options.statsd_address, error=str(error))
            reachable = False


async def _send(address: str, datagrams: Sequence[bytes], interval_s: float) -> None:
    host, _, port = address.rpartition(":")
    async with await anyio.create_connected_udp_socket(host.strip("[]"), int(port)) as socket:
        for datagram in datagrams:
            await socket.send(datagram)
            await anyio.sleep((interval_s - _MARGIN_S) / len(datagrams))


def broker_lines(before: BrokerStats, now: BrokerStats, *, exclude_ephemeral: bool = False) -> Iterator[str]:
    """Yield the metrics of all topics and channels without the prefix; counters are what came since ``before``."""
    earlier = {topic.topic_name: topic for topic in before.topics or ()}
    for topic in now.topics or ():
        if not (exclude_ephemeral and is_ephemeral(topic.topic_name)):
            yield from _topic_lines(earlier.get(topic.topic_name), topic, exclude_ephemeral)


def _topic_lines(before: TopicStats | None, topic: TopicStats, exclude_ephemeral: bool) -> Iterator[str]:
    name = f"topic.{topic.topic_name}"
    yield _counter(f"{name}.message_count", before.message_count if before else 0, topic.message_count)
    yield _counter(f"{name}.message_bytes", before.message_bytes if before else 0, topic.message_bytes)
    yield f"{name}.depth:{topic.depth}|g"
    yield f"{name}.backend_depth:{topic.backend_depth}|g"
    yield from _latency_lines(name, topic.e2e_processing_latency)
    earlier = {channel.channel_name: channel for channel in before.channels} if before else {}
    for channel in topic.channels:
        if not (exclude_ephemeral and is_ephemeral(channel.channel_name)):
            yield from _channel_lines(name, earlier.get(channel.channel_name), channel)


def _channel_lines(topic: str, before: ChannelStats | None, channel: ChannelStats) -> Iterator[str]:
    name = f"{topic}.channel.{channel.channel_name}"
    yield _counter(f"{name}.message_count", before.message_count if before else 0, channel.message_count)
    yield f"{name}.depth:{channel.depth}|g"
    yield f"{name}.backend_depth:{channel.backend_depth}|g"
    yield f"{name}.in_flight_count:{channel.in_flight_count}|g"
    yield f"{name}.deferred_count:{channel.deferred_count}|g"
    yield _counter(f"{name}.requeue_count", before.requeue_count if before else 0, channel.requeue_count)
    yield _counter(f"{name}.timeout_count", before.timeout_count if before else 0, channel.timeout_count)
    yield f"{name}.clients:{channel.client_count}|g"
    yield from _latency_lines(name, channel.e2e_processing_latency)


def _latency_lines(name: str, latency: Latency) -> Iterator[str]:
    for quantile, value_ns in latency.percentiles or ():
        yield f"{name}.e2e_processing_latency_{quantile * 100:.0f}:{int(value_ns)}|g"


def memory_lines(before: dict[str, int], now: dict[str, int]) -> Iterator[str]:
    """Yield the metrics of ``memory_figures`` without the prefix."""
    for name, value in now.items():
        if name == "gc_total_runs":
            yield _counter("mem.gc_runs", before.get(name, 0), value)
        else:
            yield f"mem.{name}:{value}|g"


def _counter(name: str, before: int, now: int) -> str:
    # Below what it was: the topic or channel was deleted and made again, so everything in it is new.
    return f"{name}:{now - before if now >= before else now}|c"


def pack(prefix: str, lines: Sequence[str], size: int) -> list[bytes]:
    """Fill datagrams of at most ``size`` bytes with whole lines; a longer line travels alone."""
    datagrams: list[bytes] = []
    datagram = b""
    for line in lines:
        encoded = f"{prefix}{line}\n".encode()
        if datagram and len(datagram) + len(encoded) > size:
            datagrams.append(datagram)
            datagram = b""
        datagram += encoded
    return [*datagrams, datagram] if datagram else datagrams
