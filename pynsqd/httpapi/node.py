"""What the handlers know of the node."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pynsqd.options import expanded_statsd_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from structlog.typing import FilteringBoundLogger

    from pynsqd.httpapi.ingest import Ingest
    from pynsqd.net.door import Door
    from pynsqd.net.drain import Drain
    from pynsqd.net.turn import Turn
    from pynsqd.options import Options
    from pynsqd.runtime.api_keys import ApiKeys
    from pynsqd.runtime.kinds import LogLevel
    from pynsqd.runtime.metrics import Histogram
    from pynsqd.storage.timings import Timings


class LogControl(Protocol):
    """The log of the node."""

    level: LogLevel

    @property
    def logger(self) -> FilteringBoundLogger:
        """Where to log."""
        ...


class Peers(Protocol):
    """Those who keep in touch with the lookupds."""

    def set_addresses(self, addresses: Iterable[str]) -> None:
        """Stay connected to these and to no others from now on."""
        ...

    def connected(self) -> dict[str, bool]:
        """Tell of each address whether its lookupd is connected."""
        ...


class Node:
    """What HTTP can see and change of a node. ``options`` are those in force: ports and prefix filled in."""

    def __init__(
        self,
        turn: Turn,
        options: Options,
        logs: LogControl,
        peers: Peers,
        *,
        ingest: Ingest,
        tcp_door: Door,
        drain: Drain,
        timings: Timings,
        loop_lag: Histogram,
        tcp_port: int,
        http_port: int,
        keys: ApiKeys | None = None,
    ) -> None:
        """Take the ports that are listened on; -1 for a Unix socket."""
        self.turn = turn
        self.logs = logs
        self.peers = peers
        self.ingest = ingest
        self.tcp_door = tcp_door
        self.drain = drain
        self.timings = timings
        self.loop_lag = loop_lag
        self.keys = keys
        self.tcp_port = tcp_port
        self.http_port = http_port
        self.started_ns = time.time_ns()
        self.hostname = socket.gethostname()
        broadcast_http_port = options.broadcast_http_port or max(http_port, 0)
        self.options = replace(
            options,
            broadcast_tcp_port=options.broadcast_tcp_port or max(tcp_port, 0),
            broadcast_http_port=broadcast_http_port,
            statsd_prefix=expanded_statsd_prefix(options.statsd_prefix, options.broadcast_address, broadcast_http_port),
        )
