"""GET and PUT /config/:opt (PROTOCOL 2.6)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pynsqd.runtime.fields import config_value
from pynsqd.runtime.http import HttpError, HttpRequest, Reply, Router, v1
from pynsqd.runtime.kinds import LogLevel, parse_level

if TYPE_CHECKING:
    from pynsqd.httpapi.node import Node


class ConfigApi:
    """The handlers. What is put here holds until the node stops."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def add_routes(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/config/:opt", self.show)
        router.add("PUT", "/config/:opt", self.change)

    async def show(self, request: HttpRequest) -> Reply:
        """Give the value of an option."""
        value = config_value(self._node.options, request.parameter)
        if value is None:
            raise HttpError(400, "INVALID_OPTION")
        return v1(None if value == "" else value)

    async def change(self, request: HttpRequest) -> Reply:
        """Change one of the two options that a running node can change, and give its new value."""
        body = await request.body(self._node.options.max_msg_size)
        if not body:
            raise HttpError(413, "INVALID_VALUE")
        try:
            if request.parameter == "log_level":
                return v1(self._set_log_level(body))
            if request.parameter == "nsqlookupd_tcp_addresses":
                return self._set_lookupds(body)
        except (ValueError, RecursionError):
            raise HttpError(400, "INVALID_VALUE") from None
        raise HttpError(400, "INVALID_OPTION")

    def _set_log_level(self, body: bytes) -> LogLevel:
        level = parse_level(body.decode())
        self._node.options = replace(self._node.options, log_level=level)
        self._node.logs.level = level
        return level

    def _set_lookupds(self, body: bytes) -> Reply:
        given = json.loads(body)
        addresses = [] if given is None else given
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise ValueError("not a list of strings")
        self._node.options = replace(self._node.options, nsqlookupd_tcp_addresses=tuple(addresses))
        self._node.peers.set_addresses(addresses)
        self._node.turn.broker.hold_new_topics = bool(addresses)
        answer = v1(addresses)
        return replace(answer, body=b"null") if given is None else answer  # as Go shows the list it was given
