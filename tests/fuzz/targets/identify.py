"""The JSON body of IDENTIFY."""

import json
from collections.abc import Iterable

from pynsqd.core.session import Session
from pynsqd.wire.errors import E_BAD_BODY, FatalClientError
from pynsqd.wire.identify import Identity, Limits, answer, negotiate
from tests.support.session_wire import Node

_NODE = Node()
_SESSION: Session = _NODE.client().session
_CURRENT: Identity = _SESSION.identity
_LIMITS: Limits = _NODE.broker.limits


def seeds() -> Iterable[bytes]:
    """Return bodies with every key."""
    keys: dict[str, object] = {
        "client_id": "a",
        "hostname": "h",
        "user_agent": "u/1",
        "feature_negotiation": True,
        "heartbeat_interval": 30000,
        "output_buffer_size": 16384,
        "output_buffer_timeout": 250,
        "tls_v1": True,
        "snappy": False,
        "deflate": True,
        "deflate_level": 6,
        "sample_rate": 50,
        "msg_timeout": 60000,
    }
    yield json.dumps(keys).encode()
    yield from (json.dumps({key: value}).encode() for key, value in keys.items())
    yield b'{"Heartbeat_Interval":-1,"msg_timeout":1e3,"client_id":"\\ud800","x":[NaN,{"y":null}]}'
    yield b"null"
    yield b"[" * 2000
    yield b'{"sample_rate":' + b"9" * 5000 + b"}"


def run(data: bytes) -> None:
    """Raise unless it is refused as a bad body, or what is agreed is within the limits."""
    try:
        identity = negotiate(data, _CURRENT, _LIMITS)
    except FatalClientError as error:
        assert error.code in (E_BAD_BODY, "E_IDENTIFY_FAILED"), error
        assert len(error.payload) < 200, error
        return
    assert identity.heartbeat_interval_ns <= _LIMITS.max_heartbeat_interval_ns
    assert 0 <= identity.output_buffer_size <= _LIMITS.max_output_buffer_size
    assert 0 <= identity.output_buffer_timeout_ns <= _LIMITS.max_output_buffer_timeout_ns
    assert 0 < identity.msg_timeout_ns <= _LIMITS.max_msg_timeout_ns
    assert 0 <= identity.sample_rate <= 99
    assert 0 < identity.deflate_level <= _LIMITS.max_deflate_level
    for text in (identity.client_id, identity.hostname, identity.user_agent):
        text.encode()  # it goes into /stats
    payload = answer(identity, _LIMITS)
    if payload != b"OK":
        json.loads(payload)
