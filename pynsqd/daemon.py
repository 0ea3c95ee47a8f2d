"""The node: built, started in order and stopped in reverse. The only file that knows all parts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Final

import anyio

from pynsqd.core.broker import Broker
from pynsqd.httpapi.app import general_path, refusing_path
from pynsqd.httpapi.ingest import TOO_MANY_CONNECTIONS, Ingest
from pynsqd.httpapi.node import Node
from pynsqd.httpapi.secured import Secured
from pynsqd.lookup_peer import LookupPeers
from pynsqd.net.connection import Connection
from pynsqd.net.door import Door
from pynsqd.net.drain import Drain
from pynsqd.net.layers.certificates import Certificates
from pynsqd.net.persistence import Persistence
from pynsqd.net.turn import Turn
from pynsqd.options import Options, TlsRequired
from pynsqd.registry import Registry
from pynsqd.runtime.fields import idle_notice
from pynsqd.runtime.lifecycle import StopSignals, stop_signals
from pynsqd.runtime.listener import Listener, listen, raise_file_limit
from pynsqd.runtime.logs import Logs
from pynsqd.runtime.loop_lag import LoopWatch
from pynsqd.runtime.metrics import Histogram
from pynsqd.runtime.version import build_info
from pynsqd.storage.checkpoint import Checkpoint
from pynsqd.storage.dirlock import DirLock
from pynsqd.storage.log_store import LogStore
from pynsqd.wire import encoder
from pynsqd.wire.constants import NSQ_VERSION
from pynsqd.wire.errors import StartupError, StorageError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from pynsqd.runtime.api_keys import ApiKeys

# How long connections stay open at the end for replies that wait for an fsync.
_LAST_FSYNC_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where a node is listening, with which keys and certificates, and what empties it.

    ``http`` is None with --http-address="", ``https`` with --https-address="" or without a certificate.
    """

    tcp: Listener
    http: Listener | None
    https: Listener | None
    keys: ApiKeys | None
    drain: Drain
    certificates: Certificates | None


async def serve(options: Options, ready: Callable[[Listeners], None] | None = None) -> None:
    """Run a node until SIGINT or SIGTERM, or until it is drained.

    Raises:
        StartupError: the data path is in use or damaged, or an address cannot be listened on.
    """
    raise_file_limit()
    with stop_signals() as signals, Logs(options.log_prefix, options.log_level, options.log_format) as logs:
        async with running(options, logs) as listeners:

            async def on_hangup() -> None:
                _reload(listeners, logs)

            logs.logger.info(build_info("pynsqd"))
            if notice := idle_notice(options, options.given, options.unknown_keys):
                logs.logger.warning(notice)
            if ready is not None:
                ready(listeners)
            stopped_by = await _stop_wanted(signals, on_hangup, listeners.drain, options.drain_timeout_ns)
            logs.logger.info("stopping", **stopped_by)


async def _stop_wanted(
    signals: StopSignals, on_hangup: Callable[[], Awaitable[None]], drain: Drain, drain_timeout_ns: int
) -> dict[str, str]:
    """Wait for a signal and the drain that it begins, for the end of another drain, or for a second signal.

    Returns what the log is to say of it.
    """
    stopped_by: dict[str, str] = {}
    async with anyio.create_task_group() as tasks:

        async def end_when_drained() -> None:
            await drain.finished.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(end_when_drained)
        stopped_by["signal"] = (await signals.wait(on_hangup)).name
        if drain_timeout_ns:
            drain.begin(drain_timeout_ns)
            stopped_by["signal"] = (await signals.wait(on_hangup)).name
        tasks.cancel_scope.cancel()
    return stopped_by


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
        logs_on_disk = LogStore(folder, options.max_bytes_per_file, lambda topic, text: log.error(text, topic=topic))
        stack.callback(logs_on_disk.close)
        try:
            logs_on_disk.check()
        except StorageError as error:
            raise StartupError(f"failed to open the log - {error}") from None
        auth = None
        if options.auth_http_addresses:
            from pynsqd.auth import AuthServers  # noqa: PLC0415  # not needed by most

            auth = AuthServers(options, log)
        certificates = Certificates(options) if options.tls_cert or options.tls_key else None
        if certificates is not None and certificates.notice:
            log.warning(certificates.notice)
        broker = Broker(options, logs_on_disk, monotonic_ns(), time_ns(), auth)
        registry = Registry(broker, folder, log)
        turn = Turn(broker, registry.on_changes)
        keys = None
        if options.http_api_key_file:
            from pynsqd.runtime.api_keys import ApiKeys, node_policy  # noqa: PLC0415  # not needed by most

            keys = ApiKeys(options.http_api_key_file, node_policy, log)
        stack.callback(turn.close)
        checkpoint = Checkpoint(folder)
        stack.callback(checkpoint.close)
        persistence = Persistence(broker, checkpoint, log, turn.schedule, registry)
        turn.after_turn = persistence.after_turn
        most = options.max_connections
        too_many = encoder.error(f"E_TOO_MANY_CONNECTIONS connections exceed limit of {most}".encode())
        door = Door("TCP", most, too_many, log.warning)
        ingest = Ingest(turn, options, Door("HTTP", most, TOO_MANY_CONNECTIONS, log.warning), keys)
        stack.callback(ingest.close)
        plain = ingest
        if options.tls_required is TlsRequired.YES:
            plain = Ingest(turn, options, Door("HTTP", most, TOO_MANY_CONNECTIONS, log.warning), refuse=True)
            stack.callback(plain.close)

        tcp = await listen(options.tcp_address, lambda: Connection(turn, door, certificates), log.warning)
        stack.callback(tcp.close)
        http = https = None
        if options.http_address:
            http = await listen(options.http_address, plain.connection, log.warning)
            stack.callback(http.close)
        if options.https_address and certificates is not None:
            https = await listen(options.https_address, Secured(certificates, ingest).connection, log.warning)
            stack.callback(https.close)

        registry.load(checkpoint.states, logs_on_disk.topics())
        logs_on_disk.go_on_removing()
        await turn.committed()
        if checkpoint.states is not None:
            persistence.renew_checkpoints()
        peers = LookupPeers(
            registry.registrations,
            _identity(options, tcp, http),
            log,
            connect_timeout_ns=options.http_client_connect_timeout_ns,
            request_timeout_ns=options.http_client_request_timeout_ns,
        )
        loop_lag = Histogram()
        stack.callback(LoopWatch(loop_lag).close)
        listeners = Listeners(tcp, http, https, keys, Drain(broker, peers.leave, log), certificates)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        registry.announce(peers, tasks, turn)
        if auth is not None:
            await tasks.start(auth.run)
        for name, listener in (("TCP", tcp), ("HTTP", http), ("HTTPS", https)):
            if listener is not None:
                await listener.start()
                log.info(f"{name}: listening on {listener.address}")
        await tasks.start(peers.run, options.nsqlookupd_tcp_addresses)
        node = Node(
            turn,
            options,
            logs,
            peers,
            ingest=ingest,
            tcp_door=door,
            drain=listeners.drain,
            timings=logs_on_disk.timings,
            loop_lag=loop_lag,
            tcp_port=tcp.port,
            http_port=http.port if http else 0,
            keys=keys,
        )
        tasks.start_soon(_serve_general_path, ingest, node)
        tasks.start_soon(listeners.drain.run)
        if plain is not ingest:
            tasks.start_soon(_serve_refusals, plain, https.port if https else 0, log)
        tasks.start_soon(persistence.probe_forever)
        if options.statsd_address:
            from pynsqd.statsd import push_forever  # noqa: PLC0415

            tasks.start_soon(push_forever, broker, options, node.options.statsd_prefix, log)
        yield listeners

        await peers.close()  # first, so that lookupd sends nobody to closed doors
        for closing in (tcp, http, https):
            if closing is not None:
                closing.close()
        broker.close_sessions()
        await turn.committed()
        broker.draining = True  # HTTP connections are open yet: what they still bring is refused, not lost
        await persistence.settle(_LAST_FSYNC_S)
        await turn.committed()
        for session in list(broker.sessions):
            session.closed()
        await turn.committed()
        registry.save()
        await persistence.close()


def _reload(listeners: Listeners, logs: Logs) -> None:
    """Read again what SIGHUP is for."""
    if listeners.keys is None and listeners.certificates is None:
        logs.logger.info("SIGHUP ignored, there is nothing to reload")
    if listeners.keys is not None:
        listeners.keys.reload()
    if listeners.certificates is not None:
        _reload_certificates(listeners.certificates, logs.logger)


def _reload_certificates(certificates: Certificates, log: FilteringBoundLogger) -> None:
    """Read certificates again; with broken files the node goes on with the ones it has."""
    try:
        certificates.reload()
    except StartupError as error:
        log.error(f"certificates not reloaded, those from before are kept - {error}")
    else:
        log.info("certificates reloaded, for the connections to come")


async def _serve_general_path(ingest: Ingest, node: Node) -> None:
    """Load what every path but the ingest needs: it takes longer than a node may take to answer /ping."""
    ingest.serve_general(await general_path(node))


async def _serve_refusals(ingest: Ingest, https_port: int, log: FilteringBoundLogger) -> None:
    ingest.serve_general(await refusing_path(https_port, log))


def _identity(options: Options, tcp: Listener, http: Listener | None) -> dict[str, object]:
    """Give what the node tells lookupd about itself (PROTOCOL 5.1)."""
    http_port = http.port if http else 0
    return {
        "version": NSQ_VERSION,
        "broadcast_address": options.broadcast_address,
        "hostname": os.uname().nodename,
        "tcp_port": options.broadcast_tcp_port or max(tcp.port, 0),
        "http_port": options.broadcast_http_port or max(http_port, 0),
    }
