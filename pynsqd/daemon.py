"""The node: built, started in order and stopped in reverse. The only file that knows all parts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from pynsqd.core.broker import Broker
from pynsqd.core.changes import Change
from pynsqd.core.log import MemoryLogs
from pynsqd.core.topic import Topic
from pynsqd.httpapi.app import Node, general_path
from pynsqd.httpapi.ingest import Ingest
from pynsqd.lookup_peer import LookupPeers
from pynsqd.net.connection import Connection
from pynsqd.net.turn import Turn
from pynsqd.options import Options
from pynsqd.runtime.fields import idle_notice
from pynsqd.runtime.lifecycle import stop_signals
from pynsqd.runtime.listener import Listener, listen
from pynsqd.runtime.logs import Logs
from pynsqd.runtime.version import build_info
from pynsqd.storage import metadata
from pynsqd.storage.dirlock import DirLock
from pynsqd.wire.constants import NSQ_VERSION
from pynsqd.wire.errors import StorageError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where a node is listening; ``http`` is None with --http-address=""."""

    tcp: Listener
    http: Listener | None


async def serve(options: Options, ready: Callable[[Listeners], None] | None = None) -> None:
    """Run a node until SIGINT or SIGTERM.

    Raises:
        StartupError: the data path is in use or damaged, or an address cannot be listened on.
    """
    with stop_signals() as signals, Logs(options.log_prefix, options.log_level, options.log_format) as logs:

        async def on_hangup() -> None:
            logs.logger.info("SIGHUP ignored, there is nothing to reload")

        async with running(options, logs) as listeners:
            logs.logger.info(build_info("pynsqd"))
            if notice := idle_notice(options, options.given):
                logs.logger.warning(notice)
            if ready is not None:
                ready(listeners)
            stopped_by = await signals.wait(on_hangup)
            logs.logger.info("stopping", signal=stopped_by.name)


@asynccontextmanager
async def running(options: Options, logs: Logs) -> AsyncIterator[Listeners]:
    """Have a node as long as the context lasts. At its end connections are closed and the state is saved.

    Raises:
        StartupError: as ``serve``.
    """
    log = logs.logger
    folder = Path(options.data_path or ".")
    async with AsyncExitStack() as stack:
        lock = DirLock(folder)
        stack.callback(lock.release)
        broker = Broker(options, MemoryLogs(), monotonic_ns(), time_ns())
        registry = _Registry(broker, folder, log)
        turn = Turn(broker, registry.on_changes)
        stack.callback(turn.close)
        ingest = Ingest(turn, options)
        stack.callback(ingest.close)

        tcp = await listen(options.tcp_address, lambda: Connection(turn))
        stack.callback(tcp.server.close)
        http = None
        if options.http_address:
            http = await listen(options.http_address, ingest.connection)
            stack.callback(http.server.close)
        listeners = Listeners(tcp, http)

        registry.load()
        peers = LookupPeers(
            registry.registrations,
            _identity(options, listeners),
            log,
            connect_timeout_ns=options.http_client_connect_timeout_ns,
            request_timeout_ns=options.http_client_request_timeout_ns,
        )
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        registry.announce(peers, tasks, turn)
        await tasks.start(peers.run, options.nsqlookupd_tcp_addresses)
        stack.push_async_callback(peers.close)

        for name, listener in (("TCP", tcp), ("HTTP", http)):
            if listener is not None:
                await listener.server.start_serving()
                log.info(f"{name}: listening on {listener.address}")
        node = Node(turn, options, logs, peers, tcp_port=tcp.port, http_port=http.port if http else 0)
        tasks.start_soon(_serve_general_path, ingest, node)
        if options.statsd_address:
            from pynsqd.statsd import push_forever  # noqa: PLC0415

            tasks.start_soon(push_forever, broker, options, node.options.statsd_prefix, log)
        yield listeners

        for closing in (tcp, http):
            if closing is not None:
                closing.server.close()
        broker.close_sessions()
        await turn.committed()
        registry.save()


async def _serve_general_path(ingest: Ingest, node: Node) -> None:
    """Load what every path but the ingest needs: it takes longer than a node may take to answer /ping."""
    ingest.serve_general(await general_path(node))


def _identity(options: Options, listeners: Listeners) -> dict[str, object]:
    """Give what the node tells lookupd about itself (PROTOCOL 5.1)."""
    http_port = listeners.http.port if listeners.http else 0
    return {
        "version": NSQ_VERSION,
        "broadcast_address": options.broadcast_address,
        "hostname": os.uname().nodename,
        "tcp_port": options.broadcast_tcp_port or max(listeners.tcp.port, 0),
        "http_port": options.broadcast_http_port or max(http_port, 0),
    }


class _Registry:
    """Keeps the metadata file, lookupd and new topics in step with the topics and channels of the broker."""

    def __init__(self, broker: Broker, folder: Path, log: FilteringBoundLogger) -> None:
        self._broker = broker
        self._folder = folder
        self._log = log
        self._peers: LookupPeers | None = None
        self._tasks: TaskGroup | None = None
        self._turn: Turn | None = None

    def load(self) -> None:
        """Create the topics and channels that were there when the node stopped. Raises StartupError."""
        for topic_meta in metadata.load(self._folder):
            topic = self._broker.topic(topic_meta.name)
            if topic_meta.paused:
                topic.pause()
            for channel_meta in topic_meta.channels:
                channel = topic.channel(channel_meta.name)
                if channel_meta.paused:
                    channel.pause()
        self._broker.take_changes()
        self.save()

    def save(self) -> None:
        """Write what there is now; a failure is logged, as in nsqd, and the next change tries again."""
        topics = (
            metadata.TopicMeta(
                topic.name,
                topic.paused,
                tuple(
                    metadata.ChannelMeta(channel.name, channel.paused)
                    for channel in topic.channels.values()
                    if not channel.ephemeral
                ),
            )
            for topic in self._broker.topics.values()
            if not topic.ephemeral
        )
        try:
            metadata.save(self._folder, topics)
        except StorageError as error:
            self._log.error("failed to persist metadata", error=str(error))

    def registrations(self) -> list[tuple[str, str]]:
        """Return (topic, channel) of all there is; (topic, "") for a topic without channels."""
        return [(topic.name, channel) for topic in self._broker.topics.values() for channel in (topic.channels or [""])]

    def announce(self, peers: LookupPeers, tasks: TaskGroup, turn: Turn) -> None:
        """From now on tell ``peers`` what changes, and ask them for the channels of new topics."""
        self._peers = peers
        self._tasks = tasks
        self._turn = turn
        self._broker.hold_new_topics = bool(self._broker.options.nsqlookupd_tcp_addresses)

    def on_changes(self, changes: list[Change]) -> None:
        """Save and announce what a turn has changed, before its replies leave."""
        self.save()
        for change in changes:
            self._log.info(change.kind.replace("_", " "), topic=change.topic, channel=change.channel)
            if self._peers is None or self._tasks is None:
                continue
            self._peers.notify(change)
            if change.kind == "topic_created":
                topic = self._broker.find_topic(change.topic)
                if topic is not None and topic.held:
                    self._tasks.start_soon(self._find_channels, topic, self._peers)

    async def _find_channels(self, topic: Topic, peers: LookupPeers) -> None:
        """Give a new topic the channels that lookupd knows, then let its messages flow (PROTOCOL 3.2)."""
        try:
            for name in await peers.channels(topic.name):
                if self._broker.find_topic(topic.name) is topic:
                    topic.channel(name)
        finally:
            topic.release()
