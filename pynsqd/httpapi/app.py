"""The general path of the node's HTTP port: every route, by aiohttp (PROTOCOL 2)."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from anyio import Event, to_thread

from pynsqd.core.gathered_batch import GatheredBatch
from pynsqd.httpapi.config import ConfigApi
from pynsqd.httpapi.debug import DebugApi
from pynsqd.httpapi.drain import DrainApi
from pynsqd.httpapi.metrics import MetricsApi
from pynsqd.httpapi.probes import ProbesApi
from pynsqd.httpapi.publish import (
    LARGE_BATCH,
    REFUSALS,
    Target,
    not_stored,
    ping,
    publish,
    read_target,
    refused,
    split,
    too_big,
)
from pynsqd.httpapi.stats import StatsApi
from pynsqd.httpapi.topics import TopicsApi
from pynsqd.runtime.http import HttpRequest, Reply, Router, http_server, v1
from pynsqd.wire.constants import NSQ_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import FilteringBoundLogger

    from pynsqd.core.publisher import Failure
    from pynsqd.httpapi.node import Node
    from pynsqd.runtime.http_connection import HttpServer
    from pynsqd.wire.errors import StorageError


async def general_path(node: Node) -> HttpServer:
    """Return the protocol factory of the general path. Takes as long as the import of aiohttp, but not the loop."""
    await to_thread.run_sync(import_module, "pynsqd.runtime.http_connection")
    return http_server(build_router(node), node.logs.logger, node.keys)


async def refusing_path(https_port: int, log: FilteringBoundLogger) -> HttpServer:
    """Return the general path of the plain port where TLS is required; nsqadmin tries ``https_port`` then."""
    await to_thread.run_sync(import_module, "pynsqd.runtime.http_connection")
    return http_server(Refusal(https_port), log)


class Refusal(Router):
    """Answers everything with 403 (PROTOCOL 2.1)."""

    def __init__(self, https_port: int) -> None:
        super().__init__()
        # nsqd writes this one by hand, with spaces.
        body = f'{{"message": "TLS_REQUIRED", "https_port": {https_port}}}'.encode()
        self._reply = replace(v1({}, 403), body=body)

    async def dispatch(self, request: HttpRequest) -> Reply:
        """Refuse."""
        return self._reply


def build_router(node: Node) -> Router:
    """Return all routes of a node."""
    router = Router()
    InfoApi(node).add_routes(router)
    PublishApi(node).add_routes(router)
    StatsApi(node).add_routes(router)
    TopicsApi(node.turn).add_routes(router)
    ConfigApi(node).add_routes(router)
    MetricsApi(node).add_routes(router)
    ProbesApi(node).add_routes(router)
    DrainApi(node).add_routes(router)
    DebugApi().add_routes(router)
    return router


class InfoApi:
    """/ping and /info."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def add_routes(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/ping", self.ping)
        router.add("GET", "/info", self.info)

    async def ping(self, request: HttpRequest) -> Reply:
        """Say whether the node is well."""
        return ping(self._node.turn.broker)

    async def info(self, request: HttpRequest) -> Reply:
        """Say who the node is (PROTOCOL 2.3)."""
        options = self._node.options
        return v1(
            {
                "version": NSQ_VERSION,
                "broadcast_address": options.broadcast_address,
                "hostname": self._node.hostname,
                "http_port": self._node.http_port,
                "tcp_port": self._node.tcp_port,
                "start_time": self._node.started_ns // 1_000_000_000,
                "max_heartbeat_interval": options.max_heartbeat_interval_ns,
                "max_output_buffer_size": options.max_output_buffer_size,
                "max_output_buffer_timeout": options.max_output_buffer_timeout_ns,
                "max_deflate_level": options.max_deflate_level,
            }
        )


class PublishApi:
    """/pub and /mpub for whatever the ingest hands over."""

    def __init__(self, node: Node) -> None:
        self._turn = node.turn

    def add_routes(self, router: Router) -> None:
        """Add the routes."""
        router.add("POST", "/pub", self.publish)
        router.add("POST", "/mpub", self.publish)

    async def publish(self, request: HttpRequest) -> Reply:
        """Publish a message, or a batch; the answer waits until it is in the log."""
        broker = self._turn.broker
        target = read_target(request.path, request.raw_query, broker.options)
        if (request.web.content_length or 0) > target.limit:
            return too_big(target)
        if target.batch and target.refusal is not None:  # the query of a batch comes before its body
            return target.refusal
        body = await request.read(target.limit + 1)
        if len(body) > target.limit:
            return too_big(target, body[: target.limit])
        publisher = _Publisher()
        if target.batch and len(body) > LARGE_BATCH:
            return await self._publish_in_parts(target, body, publisher)
        refusal = publish(broker, target, body, publisher, b"OK")
        return await self._answer(publisher, refusal)

    async def _publish_in_parts(self, target: Target, body: bytes, publisher: _Publisher) -> Reply:
        """Publish a large batch, all or nothing; others have their turn between its parts."""
        broker = self._turn.broker
        batch = GatheredBatch()
        try:
            broker.topic(target.topic)
            await self._gather(target, body, batch)
            publisher.replies.append(b"OK")
            broker.topic(target.topic).publishes.publish_batch(batch, publisher, "MPUB")
        except REFUSALS as error:
            return refused(error)
        return await self._answer(publisher, None)

    async def _gather(self, target: Target, body: bytes, batch: GatheredBatch) -> None:
        broker = self._turn.broker
        try:
            for piece, count in split(body, target.binary, broker.options):
                if count:
                    batch.pieces.append(piece)
                    batch.counts.append(count)
                topic = broker.topics.get(target.topic)
                if topic is not None:
                    topic.publishes.stage(batch, broker.wall_ns(self._turn.now_ns()))
                await self._turn.committed()
        except BaseException:  # cancelled too: the client may leave
            topic = broker.topics.get(target.topic)
            if topic is not None:
                topic.publishes.unstage(batch)
            raise

    async def _answer(self, publisher: _Publisher, refusal: Reply | None) -> Reply:
        await self._turn.committed()
        if refusal is not None:
            return refusal
        await publisher.settled()
        return not_stored(publisher.error) if publisher.error else v1("OK")


class _Publisher:
    """Hears whether one publish came true (core.publisher)."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.error: StorageError | None = None
        self._synced = Event()
        self._synced.set()

    def publish_failed(self, reply: int, verb: str, error: StorageError) -> None:
        self.error = error

    def hold(self, first: int) -> None:
        self._synced = Event()

    def let_go(self, failures: Sequence[Failure]) -> None:
        self.error = failures[0][2] if failures else None
        self._synced.set()

    async def settled(self) -> None:
        """Wait for the fsync that the answer needs, if there is one."""
        await self._synced.wait()
