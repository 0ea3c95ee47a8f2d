"""POST /drain."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from pynsqd.runtime.duration import parse_duration
from pynsqd.runtime.http import HttpError, HttpRequest, Reply, Router, v1

if TYPE_CHECKING:
    from pynsqd.httpapi.node import Node


class DrainApi:
    """The handler."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def add_routes(self, router: Router) -> None:
        """Add the route."""
        router.add("POST", "/drain", self.drain)

    async def drain(self, request: HttpRequest) -> Reply:
        """Begin to drain; the process ends after that. Once more only shortens the time, and says what is left."""
        text = request.query().get("timeout")
        try:
            timeout_ns = self._node.options.drain_timeout_ns if text is None else parse_duration(text)
        except ValueError:
            timeout_ns = -1
        if timeout_ns < 0:
            raise HttpError(400, "INVALID_TIMEOUT")
        first = self._node.drain.begin(timeout_ns)
        return v1({"message": "draining" if first else "already draining", **asdict(self._node.drain.left())})
