"""The lookupd daemon: built, started and stopped here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from lookupd.connection import Connection
from lookupd.httpapi import HttpApi
from lookupd.metrics import Metrics
from lookupd.options import Options
from lookupd.registration_db import RegistrationDB
from pynsqd.runtime.api_keys import ApiKeys, lookupd_policy
from pynsqd.runtime.fields import idle_notice
from pynsqd.runtime.http import http_server
from pynsqd.runtime.lifecycle import stop_signals
from pynsqd.runtime.listener import Listener, listen, raise_file_limit
from pynsqd.runtime.logs import Logs
from pynsqd.runtime.loop_lag import LoopWatch
from pynsqd.runtime.version import build_info
from pynsqd.wire.constants import NSQ_VERSION
from pynsqd.wire.go_json import encode_json

# For requests that are being answered when the daemon stops.
_HTTP_SHUTDOWN_S = 1.0


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where a lookupd is listening, and with which keys."""

    tcp: Listener
    http: Listener
    keys: ApiKeys | None


async def serve(options: Options, ready: Callable[[Listeners], None] | None = None) -> None:
    """Run a lookupd until SIGINT or SIGTERM; SIGHUP reads the API keys again.

    Raises:
        StartupError: an address cannot be listened on, or the file of API keys is wrong.
    """
    raise_file_limit()
    with stop_signals() as signals, Logs(options.log_prefix, options.log_level, options.log_format) as logs:
        async with running(options, logs.logger) as listeners:

            async def on_hangup() -> None:
                if listeners.keys is None:
                    logs.logger.info("SIGHUP ignored, there is nothing to reload")
                else:
                    listeners.keys.reload()

            logs.logger.info(build_info("pynsqlookupd"))
            if notice := idle_notice(options, options.given, options.unknown_keys):
                logs.logger.warning(notice)
            if ready is not None:
                ready(listeners)
            stopped_by = await signals.wait(on_hangup)
            logs.logger.info("stopping", signal=stopped_by.name)


@asynccontextmanager
async def running(options: Options, log: FilteringBoundLogger) -> AsyncIterator[Listeners]:
    """Have a lookupd as long as the context lasts. All connections are closed at its end.

    Raises:
        StartupError: an address cannot be listened on.
    """
    db = RegistrationDB(options.inactive_producer_timeout_ns, options.tombstone_lifetime_ns)
    connections: set[Connection] = set()
    async with AsyncExitStack() as stack:
        tcp = await listen(options.tcp_address, lambda: Connection(db, identity, connections, log), log.warning)
        stack.callback(tcp.close)
        keys = ApiKeys(options.http_api_key_file, lookupd_policy, log) if options.http_api_key_file else None
        metrics = Metrics(db, connections)
        http_connections = http_server(HttpApi(db, metrics).router(), log, keys)
        http = await listen(options.http_address, http_connections, log.warning)
        stack.callback(http.close)

        def identity() -> bytes:
            return _identity(options.broadcast_address, tcp, http)

        for name, listener in (("TCP", tcp), ("HTTP", http)):
            await listener.start()
            log.info(f"{name}: listening on {listener.address}")
        stack.callback(LoopWatch(metrics.loop_lag).close)
        yield Listeners(tcp, http, keys)
        tcp.close()
        http.close()
        for connection in list(connections):
            connection.close()
        http_connections.pre_shutdown()
        await http_connections.shutdown(_HTTP_SHUTDOWN_S)


def _identity(broadcast_address: str, tcp: Listener, http: Listener) -> bytes:
    """Give the answer to an IDENTIFY (PROTOCOL 5.1)."""
    return encode_json(
        {
            "broadcast_address": broadcast_address,
            "hostname": os.uname().nodename,
            "http_port": http.port,
            "tcp_port": tcp.port,
            "version": NSQ_VERSION,
        }
    )
