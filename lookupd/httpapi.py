"""lookupd's HTTP side (PROTOCOL 6, general rules 2.1)."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lookupd.registration_db import Producer, RegistrationDB
from pynsqd.runtime.http import HttpError, HttpRequest, Reply, Router, argument, plain, v1, valid_name
from pynsqd.runtime.metrics import CONTENT_TYPE
from pynsqd.wire.constants import NSQ_VERSION

if TYPE_CHECKING:
    from lookupd.metrics import Metrics

# What Go prints for the time that a tombstone never had.
_NEVER_NS: Final = -6795364578871345152


class HttpApi:
    """The handlers, one per route."""

    def __init__(self, db: RegistrationDB, metrics: Metrics) -> None:
        self._db = db
        self._metrics = metrics

    def router(self) -> Router:
        """Return the routes."""
        router = Router()
        for path, handler in (
            ("/ping", self.ping),
            ("/info", self.info),
            ("/topics", self.topics),
            ("/channels", self.channels),
            ("/lookup", self.lookup),
            ("/nodes", self.nodes),
            ("/debug", self.debug),
            ("/metrics", self.metrics),
            ("/livez", self.ping),
            ("/readyz", self.ping),  # what it knows is in memory and comes from the nodes: it is ready once it listens
        ):
            router.add("GET", path, handler)
        for path, handler in (
            ("/topic/create", self.create_topic),
            ("/topic/delete", self.delete_topic),
            ("/topic/tombstone", self.tombstone_topic),
            ("/channel/create", self.create_channel),
            ("/channel/delete", self.delete_channel),
        ):
            router.add("POST", path, handler)
        return router

    async def ping(self, request: HttpRequest) -> Reply:
        """Say that the process lives."""
        return plain("OK")

    async def info(self, request: HttpRequest) -> Reply:
        """Give the version."""
        return v1({"version": NSQ_VERSION})

    async def topics(self, request: HttpRequest) -> Reply:
        """List all topics."""
        return v1({"topics": self._db.topics()})

    async def channels(self, request: HttpRequest) -> Reply:
        """List the channels of a topic."""
        return v1({"channels": self._db.channels(argument(request.query(), "topic"))})

    async def lookup(self, request: HttpRequest) -> Reply:
        """Give the channels and the producers of a topic; this is what consumers poll."""
        topic = argument(request.query(), "topic")
        producers = self._db.lookup(topic, time.time_ns())
        if producers is None:
            raise HttpError(404, "TOPIC_NOT_FOUND")
        return v1({"channels": self._db.channels(topic), "producers": [entry.info.shown() for entry in producers]})

    async def nodes(self, request: HttpRequest) -> Reply:
        """List the active nodes with their topics; ``tombstones`` and ``topics`` are parallel lists."""
        now_ns = time.time_ns()
        return v1({"producers": [self._node(producer, now_ns) for producer in self._db.nodes(now_ns)]})

    def _node(self, producer: Producer, now_ns: int) -> dict[str, object]:
        topics = list(producer.registered)
        tombstones = [False] * len(topics)
        if producer.tombstones:
            tombstones = [self._db.is_tombstoned(producer, topic, now_ns) for topic in topics]
        return producer.info.shown() | {"tombstones": tombstones, "topics": topics}

    async def debug(self, request: HttpRequest) -> Reply:
        """Show every registration that has a producer, keys sorted."""
        shown = {
            key: [_debug_producer(producer, tombstoned_at_ns) for producer, tombstoned_at_ns in producers]
            for key, producers in self._db.registrations()
        }
        return v1(dict(sorted(shown.items())))

    async def metrics(self, request: HttpRequest) -> Reply:
        """Show the figures of this lookupd for Prometheus."""
        return replace(plain(self._metrics.text(time.time_ns())), headers=(("Content-Type", CONTENT_TYPE),))

    async def create_topic(self, request: HttpRequest) -> Reply:
        """Add a topic without a producer."""
        self._db.create_topic(valid_name(request.query(), "topic"))
        return v1()

    async def delete_topic(self, request: HttpRequest) -> Reply:
        """Remove the registrations of a topic and its channels."""
        self._db.delete_topic(_one_topic(request.query()))
        return v1()

    async def tombstone_topic(self, request: HttpRequest) -> Reply:
        """Hide a node from the lookups of a topic for a while."""
        query = request.query()
        topic, node = _one_topic(query), argument(query, "node")
        self._db.tombstone(topic, node, time.time_ns())
        return v1()

    async def create_channel(self, request: HttpRequest) -> Reply:
        """Add a channel, and its topic, without a producer."""
        query = request.query()
        self._db.create_channel(valid_name(query, "topic"), valid_name(query, "channel"))
        return v1()

    async def delete_channel(self, request: HttpRequest) -> Reply:
        """Remove the registrations of a channel."""
        query = request.query()
        if not self._db.delete_channel(valid_name(query, "topic"), valid_name(query, "channel")):
            raise HttpError(404, "CHANNEL_NOT_FOUND")
        return v1()


def _one_topic(query: dict[str, str]) -> str:
    """Return the topic to change; any name will do but ``*``, which in nsqlookupd means all (PROTOCOL 8, row 14)."""
    topic = argument(query, "topic")
    if topic == "*":
        raise HttpError(400, "INVALID_ARG_TOPIC")
    return topic


def _debug_producer(producer: Producer, tombstoned_at_ns: int | None) -> dict[str, object]:
    return {
        "broadcast_address": producer.info.broadcast_address,
        "hostname": producer.info.hostname,
        "http_port": producer.info.http_port,
        "id": producer.id,
        "last_update": producer.last_update_ns,
        "tcp_port": producer.info.tcp_port,
        "tombstoned": tombstoned_at_ns is not None,
        "tombstoned_at": _NEVER_NS if tombstoned_at_ns is None else tombstoned_at_ns,
        "version": producer.info.version,
    }
