"""/topic/* and /channel/* (PROTOCOL 2.2). Every change is in the metadata file before its answer leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynsqd.core.log import FSYNC, LOG, MEMORY
from pynsqd.httpapi.publish import not_stored, topic_name
from pynsqd.runtime.http import HttpError, HttpRequest, Reply, Router, argument, v1, valid_name
from pynsqd.wire.errors import LimitReached, StorageError

if TYPE_CHECKING:
    from pynsqd.core.channel import Channel
    from pynsqd.core.topic import Topic
    from pynsqd.net.turn import Turn


class TopicsApi:
    """The handlers, one per route."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._broker = turn.broker

    def add_routes(self, router: Router) -> None:
        """Add the routes."""
        for path, handler in (
            ("/topic/create", self.create_topic),
            ("/topic/delete", self.delete_topic),
            ("/topic/empty", self.empty_topic),
            ("/topic/pause", self.pause_topic),
            ("/topic/unpause", self.unpause_topic),
            ("/channel/create", self.create_channel),
            ("/channel/delete", self.delete_channel),
            ("/channel/empty", self.empty_channel),
            ("/channel/pause", self.pause_channel),
            ("/channel/unpause", self.unpause_channel),
        ):
            router.add("POST", path, handler)

    async def create_topic(self, request: HttpRequest) -> Reply:
        """Create a topic; it may exist already. ``durability`` says what an OK to its publishers promises."""
        query = request.query()
        name = topic_name(query)
        durability = query.get("durability")
        if durability not in (None, MEMORY, LOG, FSYNC):
            raise HttpError(400, "INVALID_DURABILITY")
        try:
            topic = self._broker.topic(name)
            if durability is not None and durability != topic.durability:
                topic.set_durability(durability)
        except StorageError as error:
            return not_stored(error)
        except LimitReached as error:
            raise HttpError(503, error.code) from None
        return await self._done()

    async def delete_topic(self, request: HttpRequest) -> Reply:
        """Delete a topic with its channels. Any name is looked up, as in nsqd; only names that are valid exist."""
        self._broker.delete_topic(self._topic(argument(request.query(), "topic")).name)
        return await self._done()

    async def empty_topic(self, request: HttpRequest) -> Reply:
        """Drop what waits on the topic itself."""
        self._topic(topic_name(request.query())).empty()
        return await self._done()

    async def pause_topic(self, request: HttpRequest) -> Reply:
        """Hold messages on the topic."""
        self._topic(argument(request.query(), "topic")).pause()
        return await self._done()

    async def unpause_topic(self, request: HttpRequest) -> Reply:
        """Let messages flow to the channels again."""
        self._topic(argument(request.query(), "topic")).unpause()
        return await self._done()

    async def create_channel(self, request: HttpRequest) -> Reply:
        """Create a channel of an existing topic; it may exist already."""
        topic, name = self._names(request)
        try:
            topic.channel(name)
        except LimitReached as error:
            raise HttpError(503, error.code) from None
        return await self._done()

    async def delete_channel(self, request: HttpRequest) -> Reply:
        """Delete a channel and close its consumers."""
        topic, channel = self._channel(request)
        topic.delete_channel(channel.name)
        return await self._done()

    async def empty_channel(self, request: HttpRequest) -> Reply:
        """Drop everything that the channel owes."""
        self._channel(request)[1].empty()
        return await self._done()

    async def pause_channel(self, request: HttpRequest) -> Reply:
        """Stop the deliveries of a channel."""
        self._channel(request)[1].pause()
        return await self._done()

    async def unpause_channel(self, request: HttpRequest) -> Reply:
        """Deliver again."""
        self._channel(request)[1].unpause()
        return await self._done()

    async def _done(self) -> Reply:
        await self._turn.committed()
        return v1()

    def _topic(self, name: str) -> Topic:
        topic = self._broker.find_topic(name)
        if topic is None:
            raise HttpError(404, "TOPIC_NOT_FOUND")
        return topic

    def _names(self, request: HttpRequest) -> tuple[Topic, str]:
        query = request.query()
        topic = valid_name(query, "topic")
        channel = valid_name(query, "channel")
        return self._topic(topic), channel

    def _channel(self, request: HttpRequest) -> tuple[Topic, Channel]:
        topic, name = self._names(request)
        channel = topic.channels.get(name)
        if channel is None:
            raise HttpError(404, "CHANNEL_NOT_FOUND")
        return topic, channel
