"""GET /livez and /readyz, for those who start, stop and route: systemd, Kubernetes, load balancers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pynsqd.net.write_probe import WriteProbe
from pynsqd.runtime.http import HttpRequest, Reply, Router, plain

if TYPE_CHECKING:
    from pynsqd.httpapi.node import Node

PROBE: Final = "pynsqd.probe"


class ProbesApi:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._broker = node.turn.broker
        self._write_probe = WriteProbe(Path(node.options.data_path or ".") / PROBE)

    def add_routes(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/livez", self.livez)
        router.add("GET", "/readyz", self.readyz)

    async def livez(self, request: HttpRequest) -> Reply:
        """Say that the event loop turns, whatever the disk does."""
        return plain("OK")

    async def readyz(self, request: HttpRequest) -> Reply:
        """Say whether the node takes messages: it is not draining, and its disk can be written to."""
        if self._broker.draining:
            return plain("NOK - draining", 503)
        failure = await self._write_probe.failure()
        if not failure and self._broker.health != "OK":
            return plain(self._broker.health, 503)
        return plain(f"NOK - {failure}", 503) if failure else plain("OK")
