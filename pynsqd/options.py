"""Every option of the node, once: flag, config key, unit, default and help (PROTOCOL 4.1).

The command line, the TOML file, GET /config and docs/configuration.md are made from these fields, so a new option is
one new field here. Fields are named as their config keys, durations with ``_ns`` behind.
"""

# ruff: noqa: RUF009  # option() is dataclasses.field() with its metadata spelled out

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from pynsqd.runtime.duration import HOUR, MILLISECOND, MINUTE, SECOND
from pynsqd.runtime.fields import Applies, option
from pynsqd.runtime.kinds import (
    BOOLEAN,
    DURATION,
    FLOATS,
    INTEGER,
    LEVEL,
    POSITIVE,
    STRING,
    STRINGS,
    Kind,
    Limit,
    LogLevel,
    load_text,
    parse_boolean,
    show_float,
    word_of,
)


class TlsRequired(IntEnum):
    """Who must speak TLS, with the numbers that /config shows (PROTOCOL 2.6)."""

    NO = 0
    TCP_HTTPS = 1  # everyone, but plain HTTP stays open
    YES = 2


_TLS_VERSIONS: Final = {"tls1.0": 0x0301, "tls1.1": 0x0302, "tls1.2": 0x0303, "tls1.3": 0x0304}
_OLDEST_TLS: Final = _TLS_VERSIONS["tls1.2"]


def _parse_tls_required(text: str) -> TlsRequired:
    if text.lower() == "tcp-https":
        return TlsRequired.TCP_HTTPS
    try:
        # nsqd lowers the word first, so here even tRUE is true.
        return TlsRequired.YES if parse_boolean(text.lower()) else TlsRequired.NO
    except ValueError:
        raise ValueError("not one of true, false, tcp-https") from None


def _show_tls_required(value: TlsRequired) -> str:
    return {TlsRequired.NO: "false", TlsRequired.TCP_HTTPS: "tcp-https", TlsRequired.YES: "true"}[value]


def _parse_tls_version(text: str) -> int:
    name = text.lower()
    if not name:
        return _OLDEST_TLS
    if name not in _TLS_VERSIONS:
        raise ValueError(f"not one of {', '.join(_TLS_VERSIONS)}")
    return _TLS_VERSIONS[name]


def _show_tls_version(value: int) -> str:
    return next(name for name, number in _TLS_VERSIONS.items() if number == value)


_TLS_REQUIRED: Final[Kind[TlsRequired]] = Kind(
    "true|false|tcp-https",
    _parse_tls_required,
    lambda value: _parse_tls_required(load_text(value)),
    _show_tls_required,
    bare=True,
)
_TLS_VERSION: Final[Kind[int]] = Kind(
    "version", _parse_tls_version, lambda value: _parse_tls_version(load_text(value)), _show_tls_version
)
_PORT: Final = Limit("[0,65535]", lambda value: 0 <= value <= 65535)
_NODE_ID: Final = Limit("[0,1024)", lambda value: 0 <= value < 1024)
_SECURITY_LEVEL: Final = Limit("[0,5]", lambda value: 0 <= value <= 5)
_DEFLATE_LEVEL: Final = Limit("[1,9]", lambda value: 1 <= value <= 9)
_LATER: Final = Applies.NOT_YET
_NEVER: Final = Applies.NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one node. Times are ns, sizes bytes; ``given`` holds the flags that were set, by name."""

    log_level: LogLevel = option(
        LEVEL, "log-level", LogLevel.INFO, "log this and what is worse: debug, info, warn, error, fatal"
    )
    log_prefix: str = option(STRING, "log-prefix", "[nsqd] ", "what every line of the text log begins with")
    log_format: str = option(
        word_of("auto", "console", "json"),
        "log-format",
        "auto",
        "how the log is written; auto is console in a terminal and plain lines elsewhere",
    )
    verbose: bool = option(BOOLEAN, "verbose", False, "deprecated, use --log-level", key="", applies=_NEVER)

    id: int = option(
        INTEGER,
        "node-id",
        0,
        "the node's part in message ids",
        key="id",
        shown="a hash of the host name",
        limit=_NODE_ID,
    )
    worker_id: bool = option(BOOLEAN, "worker-id", False, "deprecated, use --node-id", key="", applies=_NEVER)

    tcp_address: str = option(
        STRING, "tcp-address", "0.0.0.0:4150", "where TCP clients connect: host:port, or a path", unit="address"
    )
    http_address: str = option(
        STRING,
        "http-address",
        "0.0.0.0:4151",
        "where HTTP clients connect: host:port, or a path; empty for no HTTP",
        unit="address",
    )
    https_address: str = option(
        STRING,
        "https-address",
        "0.0.0.0:4152",
        "where HTTPS clients connect, with TLS configured: host:port; empty for no HTTPS",
        unit="address",
    )
    broadcast_address: str = option(
        STRING, "broadcast-address", "", "the host that lookupd tells clients", unit="host", shown="the host name"
    )
    broadcast_tcp_port: int = option(
        INTEGER, "broadcast-tcp-port", 0, "the TCP port that lookupd tells clients; 0 is the listening one", limit=_PORT
    )
    broadcast_http_port: int = option(
        INTEGER,
        "broadcast-http-port",
        0,
        "the HTTP port that lookupd tells clients; 0 is the listening one",
        limit=_PORT,
    )
    nsqlookupd_tcp_addresses: tuple[str, ...] = option(
        STRINGS,
        "lookupd-tcp-address",
        (),
        "TCP address of a lookupd to register with",
        key="nsqlookupd_tcp_addresses",
        unit="address",
    )
    auth_http_addresses: tuple[str, ...] = option(
        STRINGS,
        "auth-http-address",
        (),
        "address or URL of an auth server",
        key="auth_http_addresses",
        unit="address",
    )
    auth_http_request_method: str = option(
        word_of("get", "post"), "auth-http-request-method", "get", "how auth servers are asked"
    )
    http_api_key_file: str = option(
        STRING, "http-api-key-file", "", "file with the keys that HTTP requests need; empty for none", unit="file"
    )
    http_client_connect_timeout_ns: int = option(
        DURATION, "http-client-connect-timeout", 2 * SECOND, "limit for connecting to lookupd and auth servers"
    )
    http_client_request_timeout_ns: int = option(
        DURATION, "http-client-request-timeout", 5 * SECOND, "limit for a query to lookupd and auth servers"
    )

    topology_region: str = option(STRING, "topology-region", "", "the region this node is in", applies=_LATER)
    topology_zone: str = option(STRING, "topology-zone", "", "the zone this node is in", applies=_LATER)
    enable_experiment: tuple[str, ...] = option(
        STRINGS, "enable-experiment", (), "switch on an experiment, such as topology-aware-consumption", applies=_LATER
    )

    data_path: str = option(
        STRING, "data-path", "", "where the node keeps its files", unit="folder", shown="the current folder"
    )
    mem_queue_size: int = option(
        INTEGER, "mem-queue-size", 10000, "messages kept in memory, per topic and per channel", unit="messages"
    )
    max_bytes_per_file: int = option(
        INTEGER,
        "max-bytes-per-file",
        104857600,
        "size at which a file of the log is closed and the next begun",
        unit="bytes",
        limit=POSITIVE,
    )
    mem_queue_bytes: int = option(
        INTEGER,
        "mem-queue-bytes",
        64 << 20,
        "messages kept in memory, all channels together; what is beyond waits on disk",
        unit="bytes",
        limit=POSITIVE,
    )
    durability: str = option(
        word_of("memory", "log", "fsync"),
        "durability",
        "log",
        "what an OK promises: memory, log (survives a kill of the node), fsync (survives a power cut)",
    )
    checkpoint_interval_ns: int = option(
        DURATION,
        "checkpoint-interval",
        100 * MILLISECOND,
        "how often it is written down what was finished; what was finished since can come twice after a kill",
        limit=POSITIVE,
    )
    sync_every: int = option(
        INTEGER,
        "sync-every",
        2500,
        "messages of a topic after which its log is synced, 50 times a second at most",
        unit="messages",
    )
    sync_timeout_ns: int = option(
        DURATION, "sync-timeout", 2 * SECOND, "longest time between two syncs of a log", limit=POSITIVE
    )
    drain_timeout_ns: int = option(
        DURATION,
        "drain-timeout",
        0,
        "longest time to deliver what is left after SIGTERM, publishes refused; 0 to stop at once",
    )
    queue_scan_worker_pool_max: int = option(
        INTEGER,
        "queue-scan-worker-pool-max",
        4,
        "of nsqd's queue scan; timeouts are kept exactly here",
        applies=_NEVER,
    )
    queue_scan_selection_count: int = option(
        INTEGER,
        "queue-scan-selection-count",
        20,
        "of nsqd's queue scan; timeouts are kept exactly here",
        limit=POSITIVE,
        applies=_NEVER,
    )

    msg_timeout_ns: int = option(
        DURATION, "msg-timeout", MINUTE, "time a client has for a message unless it asks otherwise", limit=POSITIVE
    )
    max_msg_timeout_ns: int = option(
        DURATION, "max-msg-timeout", 15 * MINUTE, "longest time a client can ask for, TOUCH included", limit=POSITIVE
    )
    max_msg_size: int = option(INTEGER, "max-msg-size", 1048576, "largest message body", unit="bytes", limit=POSITIVE)
    max_req_timeout_ns: int = option(
        DURATION, "max-req-timeout", HOUR, "longest time a message can be requeued or deferred for"
    )
    max_body_size: int = option(
        INTEGER, "max-body-size", 5242880, "largest body of a command, such as a batch", unit="bytes", limit=POSITIVE
    )

    max_heartbeat_interval_ns: int = option(
        DURATION, "max-heartbeat-interval", MINUTE, "longest time between heartbeats that a client can ask for"
    )
    max_rdy_count: int = option(INTEGER, "max-rdy-count", 2500, "largest RDY a client can ask for", unit="messages")
    max_output_buffer_size: int = option(
        INTEGER, "max-output-buffer-size", 65536, "largest output buffer a client can ask for", unit="bytes"
    )
    max_output_buffer_timeout_ns: int = option(
        DURATION, "max-output-buffer-timeout", 30 * SECOND, "longest time between flushes that a client can ask for"
    )
    min_output_buffer_timeout_ns: int = option(
        DURATION, "min-output-buffer-timeout", 25 * MILLISECOND, "shortest time between flushes a client can ask for"
    )
    output_buffer_timeout_ns: int = option(
        DURATION,
        "output-buffer-timeout",
        250 * MILLISECOND,
        "longest time a message may wait to be flushed, unless the client asks otherwise",
        limit=POSITIVE,
    )
    max_channel_consumers: int = option(
        INTEGER, "max-channel-consumers", 0, "consumers a channel may have; 0 for any number", unit="connections"
    )
    max_connections: int = option(
        INTEGER,
        "max-connections",
        0,
        "connections at a time, TCP and HTTP counted apart; 0 for any number",
        unit="connections",
    )
    max_topics: int = option(
        INTEGER,
        "max-topics",
        0,
        "topics there may be; 0 for any number",
        unit="topics",
    )
    max_channels: int = option(
        INTEGER,
        "max-channels",
        0,
        "channels a topic may have; 0 for any number",
        unit="channels",
    )

    statsd_address: str = option(
        STRING, "statsd-address", "", "UDP address of a statsd daemon; empty for none", unit="address"
    )
    statsd_interval_ns: int = option(DURATION, "statsd-interval", MINUTE, "time between two pushes; more than 1s")
    statsd_mem_stats: bool = option(BOOLEAN, "statsd-mem-stats", True, "push memory and GC figures too")
    statsd_prefix: str = option(
        STRING, "statsd-prefix", "nsq.%s", "what names begin with; %s is the broadcast address and HTTP port"
    )
    statsd_udp_packet_size: int = option(
        INTEGER, "statsd-udp-packet-size", 508, "largest datagram", unit="bytes", limit=POSITIVE
    )
    statsd_exclude_ephemeral: bool = option(
        BOOLEAN, "statsd-exclude-ephemeral", False, "leave out ephemeral topics and channels"
    )

    e2e_processing_latency_percentiles: tuple[float, ...] = option(
        FLOATS,
        "e2e-processing-latency-percentile",
        (),
        "quantiles in (0,1] of the time from publish to FIN to track, such as 0.99,0.95",
        key="e2e_processing_latency_percentiles",
    )
    e2e_processing_latency_window_time_ns: int = option(
        DURATION,
        "e2e-processing-latency-window-time",
        10 * MINUTE,
        "time that the quantiles look back",
        limit=POSITIVE,
    )

    tls_cert: str = option(
        STRING, "tls-cert", "", "PEM file with the certificate and what leads to its root", unit="file"
    )
    tls_key: str = option(STRING, "tls-key", "", "PEM file with its key, not encrypted", unit="file")
    tls_client_auth_policy: str = option(
        STRING,
        "tls-client-auth-policy",
        "",
        "require: any client certificate; require-verify: one that --tls-root-ca-file vouches for",
        unit="policy",
    )
    tls_root_ca_file: str = option(STRING, "tls-root-ca-file", "", "PEM file with the trusted authorities", unit="file")
    tls_required: TlsRequired = option(
        _TLS_REQUIRED,
        "tls-required",
        TlsRequired.NO,
        "refuse clients without TLS: true, false, or tcp-https to leave plain HTTP open",
    )
    tls_min_version: int = option(
        _TLS_VERSION,
        "tls-min-version",
        _OLDEST_TLS,
        "oldest TLS version accepted: tls1.0, tls1.1, tls1.2, tls1.3",
    )
    tls_security_level: int = option(
        INTEGER,
        "tls-security-level",
        2,
        "OpenSSL's demands on keys and algorithms; 0 for the keys and versions of old clients",
        limit=_SECURITY_LEVEL,
    )

    deflate: bool = option(BOOLEAN, "deflate", True, "let clients ask for deflate")
    max_deflate_level: int = option(
        INTEGER, "max-deflate-level", 6, "highest deflate level a client can ask for", limit=_DEFLATE_LEVEL
    )
    snappy: bool = option(BOOLEAN, "snappy", True, "let clients ask for snappy")

    given: frozenset[str] = frozenset()
    unknown_keys: frozenset[str] = frozenset()  # of the config file


def checked(options: Options) -> Options:
    """Check what one option demands of another, and return the options in force (PROTOCOL 3.1).

    Raises ValueError for what nsqd refuses at start, and for what makes it fail later (4.1, DEVIATIONS).
    """
    if options.tls_client_auth_policy and options.tls_required is TlsRequired.NO:
        options = replace(options, tls_required=TlsRequired.YES)
    if options.tls_required is not TlsRequired.NO and not (options.tls_cert or options.tls_key):
        raise ValueError("cannot require TLS client connections without TLS key and cert")
    for address in options.auth_http_addresses:
        scheme, separator, host = address.rpartition("://")
        if not host or (separator and scheme not in ("http", "https")):
            raise ValueError("--auth-http-address must be host:port, or an http or https URL")
    for percentile in options.e2e_processing_latency_percentiles:
        if not 0 < percentile <= 1:
            raise ValueError(f"invalid E2E processing latency percentile: {show_float(percentile)}")
    if options.statsd_address and options.statsd_interval_ns <= SECOND:
        raise ValueError("--statsd-interval must be more than 1s")
    return options


def expanded_statsd_prefix(prefix: str, host: str, port: int) -> str:
    """Put host and port for ``%s`` and end in a dot, as names and /config show it (PROTOCOL 2.6, 3.11)."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    expanded = prefix.replace("%s", address.replace(".", "_").replace(":", "_"))
    return expanded if not expanded or expanded.endswith(".") else expanded + "."
