"""IDENTIFY: from a JSON body to what the connection is from now on, and the answer (PROTOCOL 1.5). Pure."""

import json
from dataclasses import asdict, dataclass
from typing import Final, NoReturn

from pynsqd.wire.constants import NSQ_VERSION
from pynsqd.wire.errors import E_BAD_BODY, FatalClientError
from pynsqd.wire.go_json import decode_json, fields

_MS: Final = 1_000_000
_DEFAULT_HEARTBEAT_NS: Final = 30_000_000_000
_MIN_HEARTBEAT_MS: Final = 1000
_MIN_MSG_TIMEOUT_MS: Final = 1000
_MIN_OUTPUT_BUFFER: Final = 64
_MAX_SAMPLE_RATE: Final = 99
_DEFAULT_OUTPUT_BUFFER: Final = 16384
_DEFAULT_DEFLATE_LEVEL: Final = 6
_INT32_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What the node allows, with its defaults for what a client leaves out. Times in ns, sizes in bytes."""

    max_rdy_count: int
    msg_timeout_ns: int
    max_msg_timeout_ns: int
    max_heartbeat_interval_ns: int
    max_output_buffer_size: int
    output_buffer_timeout_ns: int
    min_output_buffer_timeout_ns: int
    max_output_buffer_timeout_ns: int
    max_deflate_level: int
    tls: bool
    deflate: bool
    snappy: bool
    auth_required: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client said of itself and what was agreed. 0 ns of heartbeat means that heartbeats are off."""

    client_id: str
    hostname: str
    user_agent: str
    heartbeat_interval_ns: int
    output_buffer_size: int
    output_buffer_timeout_ns: int
    sample_rate: int
    msg_timeout_ns: int
    negotiated: bool
    tls: bool
    deflate: bool
    deflate_level: int
    snappy: bool

    @property
    def layered(self) -> bool:
        """Whether TLS or compression comes between the socket and the commands."""
        return self.tls or self.deflate or self.snappy


@dataclass(frozen=True, slots=True)
class _Request:
    """The body; the field names are its keys, the types are those of the defaults."""

    client_id: str = ""
    hostname: str = ""
    user_agent: str = ""
    heartbeat_interval: int = 0
    output_buffer_size: int = 0
    output_buffer_timeout: int = 0
    sample_rate: int = 0
    msg_timeout: int = 0
    feature_negotiation: bool = False
    tls_v1: bool = False
    deflate: bool = False
    deflate_level: int = 0
    snappy: bool = False


_KINDS: Final = {name: type(default) for name, default in asdict(_Request()).items()}


def unidentified(address: str, limits: Limits) -> Identity:
    """Return what a client at ``address`` (host:port) is until it says so."""
    host = address.rpartition(":")[0].strip("[]") or address
    return Identity(
        client_id=host,
        hostname=host,
        user_agent="",
        heartbeat_interval_ns=_DEFAULT_HEARTBEAT_NS,
        output_buffer_size=_DEFAULT_OUTPUT_BUFFER,
        output_buffer_timeout_ns=limits.output_buffer_timeout_ns,
        sample_rate=0,
        msg_timeout_ns=limits.msg_timeout_ns,
        negotiated=False,
        tls=False,
        deflate=False,
        deflate_level=0,
        snappy=False,
    )


def negotiate(body: bytes, current: Identity, limits: Limits) -> Identity:
    """Apply an IDENTIFY ``body`` to the ``current`` identity of the connection.

    Raises FatalClientError with nsqd's text for the first thing that is wrong, in nsqd's order.
    """
    request = _decode(body)
    heartbeat_ns = _heartbeat_ns(request.heartbeat_interval, current, limits)
    timeout_ns = _output_buffer_timeout_ns(request.output_buffer_timeout, current, limits)
    size, timeout_ns = _output_buffer_size(request.output_buffer_size, timeout_ns, current, limits)
    if not 0 <= request.sample_rate <= _MAX_SAMPLE_RATE:
        _fail(f"sample rate ({request.sample_rate}) is invalid")
    msg_timeout_ns = _msg_timeout_ns(request.msg_timeout, current, limits)
    wants = request.feature_negotiation
    deflate = wants and limits.deflate and request.deflate
    snappy = wants and limits.snappy and request.snappy
    if deflate and snappy:
        raise FatalClientError("E_IDENTIFY_FAILED", "cannot enable both deflate and snappy compression")
    level = request.deflate_level if deflate and request.deflate_level > 0 else _DEFAULT_DEFLATE_LEVEL
    return Identity(
        client_id=request.client_id,
        hostname=request.hostname,
        user_agent=request.user_agent,
        heartbeat_interval_ns=heartbeat_ns,
        output_buffer_size=size,
        output_buffer_timeout_ns=timeout_ns,
        sample_rate=request.sample_rate,
        msg_timeout_ns=msg_timeout_ns,
        negotiated=wants,
        tls=wants and limits.tls and request.tls_v1,
        deflate=deflate,
        deflate_level=min(level, limits.max_deflate_level),
        snappy=snappy,
    )


def answer(identity: Identity, limits: Limits) -> bytes:
    """Return the payload of the response: ``OK``, or the negotiated features as JSON with nsqd's keys in its order."""
    if not identity.negotiated:
        return b"OK"
    features = {
        "max_rdy_count": limits.max_rdy_count,
        "version": NSQ_VERSION,
        "max_msg_timeout": limits.max_msg_timeout_ns // _MS,
        "msg_timeout": identity.msg_timeout_ns // _MS,
        "tls_v1": identity.tls,
        "deflate": identity.deflate,
        "deflate_level": identity.deflate_level,
        "max_deflate_level": limits.max_deflate_level,
        "snappy": identity.snappy,
        "sample_rate": identity.sample_rate,
        "auth_required": limits.auth_required,
        "output_buffer_size": identity.output_buffer_size,
        "output_buffer_timeout": identity.output_buffer_timeout_ns // _MS,
    }
    return json.dumps(features, separators=(",", ":")).encode()


def _fail(what: str) -> NoReturn:
    raise FatalClientError(E_BAD_BODY, f"IDENTIFY {what}")


def _decode(body: bytes) -> _Request:
    try:
        found = fields(decode_json(body), _KINDS)
        if not -_INT32_MAX - 1 <= found.get("sample_rate", 0) <= _INT32_MAX:
            raise ValueError("sample_rate")
    except ValueError:
        _fail("failed to decode JSON body")
    return _Request(**found)


def _heartbeat_ns(interval_ms: int, current: Identity, limits: Limits) -> int:
    if interval_ms == -1:
        return 0
    if interval_ms == 0:
        return current.heartbeat_interval_ns
    if not _MIN_HEARTBEAT_MS <= interval_ms <= limits.max_heartbeat_interval_ns // _MS:
        _fail(f"heartbeat interval ({interval_ms}) is invalid")
    return interval_ms * _MS


def _output_buffer_timeout_ns(timeout_ms: int, current: Identity, limits: Limits) -> int:
    if timeout_ms == -1:
        return 0
    if timeout_ms == 0:
        return current.output_buffer_timeout_ns
    if not (limits.min_output_buffer_timeout_ns // _MS <= timeout_ms <= limits.max_output_buffer_timeout_ns // _MS):
        _fail(f"output buffer timeout ({timeout_ms}) is invalid")
    return timeout_ms * _MS


def _output_buffer_size(size: int, timeout_ns: int, current: Identity, limits: Limits) -> tuple[int, int]:
    """Return size and timeout: -1 means unbuffered, which is size 1 and no timeout."""
    if size == -1:
        return 1, 0
    if size == 0:
        return current.output_buffer_size, timeout_ns
    if not _MIN_OUTPUT_BUFFER <= size <= limits.max_output_buffer_size:
        _fail(f"output buffer size ({size}) is invalid")
    return size, timeout_ns


def _msg_timeout_ns(timeout_ms: int, current: Identity, limits: Limits) -> int:
    if timeout_ms == 0:
        return current.msg_timeout_ns
    if not _MIN_MSG_TIMEOUT_MS <= timeout_ms <= limits.max_msg_timeout_ns // _MS:
        _fail(f"msg timeout ({timeout_ms}) is invalid")
    return timeout_ms * _MS
