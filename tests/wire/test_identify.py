"""IDENTIFY: what a client may ask for, what it gets, and how a bad one is refused (PROTOCOL 1.4, 1.5)."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.wire.errors import FatalClientError
from pynsqd.wire.identify import Identity, Limits, answer, negotiate, unidentified

MS = 1_000_000
LIMITS = Limits(
    max_rdy_count=2500,
    msg_timeout_ns=60_000 * MS,
    max_msg_timeout_ns=900_000 * MS,
    max_heartbeat_interval_ns=60_000 * MS,
    max_output_buffer_size=65536,
    output_buffer_timeout_ns=250 * MS,
    min_output_buffer_timeout_ns=25 * MS,
    max_output_buffer_timeout_ns=30_000 * MS,
    max_deflate_level=6,
    tls=False,
    deflate=False,
    snappy=False,
    auth_required=False,
)
ALL_ON = replace(LIMITS, tls=True, deflate=True, snappy=True)
BEFORE = Identity(
    client_id="10.0.0.1",
    hostname="10.0.0.1",
    user_agent="",
    heartbeat_interval_ns=30_000 * MS,
    output_buffer_size=16384,
    output_buffer_timeout_ns=250 * MS,
    sample_rate=0,
    msg_timeout_ns=60_000 * MS,
    negotiated=False,
    tls=False,
    deflate=False,
    deflate_level=0,
    snappy=False,
)


def _negotiate(limits: Limits = LIMITS, current: Identity = BEFORE, **keys: Any) -> Identity:
    return negotiate(json.dumps(keys).encode(), current, limits)


def _refusal(body: bytes | dict[str, Any], limits: Limits = LIMITS) -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(FatalClientError) as caught:
        negotiate(raw, BEFORE, limits)
    return caught.value.payload.decode()


@pytest.mark.parametrize(
    ("address", "host"), [("10.0.0.1:4711", "10.0.0.1"), ("[::1]:4711", "::1"), ("@", "@"), ("", "")]
)
def test_until_it_says_so_a_client_is_its_address(address: str, host: str) -> None:
    assert unidentified(address, LIMITS) == replace(BEFORE, client_id=host, hostname=host)


@pytest.mark.parametrize("layer", ["tls", "deflate", "snappy"])
def test_a_layer_is_one_of_three(layer: str) -> None:
    assert not BEFORE.layered
    assert replace(BEFORE, **{layer: True}).layered


# -- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"xx",
        b"",
        b"[]",
        b'"x"',
        b"1",
        b"true",
        b"{} x",
        b"{}{}",
        b"{",
        b"{'client_id':'x'}",
        b'{"client_id":1}',
        b'{"client_id":true}',
        b'{"client_id":["x"]}',
        b'{"client_id":{}}',
        b'{"client_id":1.5}',
        b'{"user_agent":0}',
        b'{"hostname":false}',
        b'{"heartbeat_interval":"1000"}',
        b'{"heartbeat_interval":1000.0}',
        b'{"heartbeat_interval":1e3}',
        b'{"heartbeat_interval":true}',
        b'{"heartbeat_interval":[1000]}',
        b'{"heartbeat_interval":{}}',
        b'{"msg_timeout":9223372036854775808}',
        b'{"msg_timeout":-9223372036854775809}',
        b'{"sample_rate":2147483648}',
        b'{"sample_rate":-2147483649}',
        b'{"sample_rate":0.5}',
        b'{"output_buffer_size":1.0}',
        b'{"deflate_level":1.0}',
        b'{"deflate_level":"6"}',
        b'{"feature_negotiation":1}',
        b'{"feature_negotiation":"true"}',
        b'{"tls_v1":0}',
        b'{"snappy":"yes"}',
        b'{"deflate":1.0}',
        b'{"x":NaN}',
        b'{"x":Infinity}',
        b'{"x":-Infinity}',
        b'{"x":01}',
        b'{"client_id":"a\nb"}',
        b"\xef\xbb\xbf{}",
        b'{"client_id":1,"client_id":"x"}',  # Go remembers the first error
        b"[" * 100_000,
        b'{"heartbeat_interval":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_object_of_the_right_types_is_refused(body: bytes) -> None:
    assert _refusal(body) == "E_BAD_BODY IDENTIFY failed to decode JSON body"


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"null",
        b" \t\r\n{ } \n",
        b'{"client_id":null,"heartbeat_interval":null,"feature_negotiation":null}',
        b'{"short_id":"a","long_id":"b"}',
        b'{"unknown":{"nested":[1.5,null,"x",1e400]}}',
        b'{"heartbeat_interval":-0}',
    ],
)
def test_what_says_nothing_changes_nothing_but_the_names(body: bytes) -> None:
    said = negotiate(body, BEFORE, LIMITS)
    assert said == replace(BEFORE, client_id="", hostname="", deflate_level=6)


def test_strings_are_kept() -> None:
    said = _negotiate(client_id="c", hostname="h", user_agent="u/1 ✓")
    assert (said.client_id, said.hostname, said.user_agent) == ("c", "h", "u/1 ✓")


def test_keys_match_in_any_case_and_the_last_wins() -> None:
    body = b'{"CLIENT_ID":"a","Client_Id":"b","hEARTBEAT_iNTERVAL":2000,"heartbeat_interval":3000}'
    said = negotiate(body, BEFORE, LIMITS)
    assert said.client_id == "b"
    assert said.heartbeat_interval_ns == 3_000 * MS


@pytest.mark.parametrize("body", [b'{"client_id":"\\ud800x"}', b'{"client_id":"\xffx"}', b'{"client_id":"\\udc80x"}'])
def test_strings_that_are_no_text_become_text(body: bytes) -> None:
    """Go puts U+FFFD; kept as they are they would break /stats, which has to be encoded."""
    assert negotiate(body, BEFORE, LIMITS).client_id == "\ufffdx"


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "bad", "text"),
    [
        ("heartbeat_interval", [-2, 1, 999, 60001, 2**63 - 1, -(2**63)], "heartbeat interval"),
        ("output_buffer_timeout", [-2, 1, 24, 30001, 2**63 - 1], "output buffer timeout"),
        ("output_buffer_size", [-2, 1, 63, 65537, 2**63 - 1], "output buffer size"),
        ("sample_rate", [-1, 100, 2**31 - 1, -(2**31)], "sample rate"),
        ("msg_timeout", [-1, -2, 1, 999, 900001, 2**63 - 1], "msg timeout"),
    ],
)
def test_out_of_range(key: str, bad: list[int], text: str) -> None:
    for value in bad:
        assert _refusal({key: value}) == f"E_BAD_BODY IDENTIFY {text} ({value}) is invalid"


def test_bounds_and_special_values() -> None:
    for ms in (1000, 60000):
        assert _negotiate(heartbeat_interval=ms).heartbeat_interval_ns == ms * MS
        assert _negotiate(msg_timeout=ms).msg_timeout_ns == ms * MS
    assert _negotiate(msg_timeout=900000).msg_timeout_ns == 900000 * MS
    for ms in (25, 30000):
        assert _negotiate(output_buffer_timeout=ms).output_buffer_timeout_ns == ms * MS
    for size in (64, 65536):
        assert _negotiate(output_buffer_size=size).output_buffer_size == size
    for rate in (0, 1, 99):
        assert _negotiate(sample_rate=rate).sample_rate == rate
    assert _negotiate(heartbeat_interval=-1).heartbeat_interval_ns == 0
    unbuffered = _negotiate(output_buffer_size=-1, output_buffer_timeout=100)
    assert (unbuffered.output_buffer_size, unbuffered.output_buffer_timeout_ns) == (1, 0)
    no_timer = _negotiate(output_buffer_timeout=-1)
    assert (no_timer.output_buffer_size, no_timer.output_buffer_timeout_ns) == (16384, 0)


def test_bounds_are_the_nodes() -> None:
    limits = replace(
        LIMITS,
        max_msg_timeout_ns=5_000 * MS,
        max_heartbeat_interval_ns=2_000 * MS,
        max_output_buffer_size=100,
        min_output_buffer_timeout_ns=10 * MS,
        max_output_buffer_timeout_ns=20 * MS,
    )
    good = {"msg_timeout": 5000, "heartbeat_interval": 2000, "output_buffer_size": 100, "output_buffer_timeout": 10}
    assert _negotiate(limits, **good).msg_timeout_ns == 5_000 * MS
    assert _negotiate(limits, output_buffer_timeout=20).output_buffer_timeout_ns == 20 * MS
    for key, bad in (
        ("msg_timeout", 5001),
        ("heartbeat_interval", 2001),
        ("output_buffer_size", 101),
        ("output_buffer_timeout", 9),
        ("output_buffer_timeout", 21),
    ):
        assert f"({bad}) is invalid" in _refusal({key: bad}, limits)


def test_the_first_thing_wrong_is_told() -> None:
    """In nsqd's order: JSON, heartbeat, buffer timeout, buffer size, sample rate, msg timeout, compression."""
    wrong: dict[str, Any] = {
        "client_id": 1,
        "heartbeat_interval": 1,
        "output_buffer_timeout": 1,
        "output_buffer_size": 1,
        "sample_rate": 100,
        "msg_timeout": 1,
        "snappy": True,
        "deflate": True,
    }
    told = []
    for key in list(wrong)[:6]:
        told.append(_refusal(wrong | {"feature_negotiation": True}, ALL_ON))
        del wrong[key]
    told.append(_refusal(wrong | {"feature_negotiation": True}, ALL_ON))
    assert told == [
        "E_BAD_BODY IDENTIFY failed to decode JSON body",
        "E_BAD_BODY IDENTIFY heartbeat interval (1) is invalid",
        "E_BAD_BODY IDENTIFY output buffer timeout (1) is invalid",
        "E_BAD_BODY IDENTIFY output buffer size (1) is invalid",
        "E_BAD_BODY IDENTIFY sample rate (100) is invalid",
        "E_BAD_BODY IDENTIFY msg timeout (1) is invalid",
        "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression",
    ]


# -- features --------------------------------------------------------------------------------------------------------


def test_both_compressions_matter_only_if_both_would_be_on() -> None:
    both = {"snappy": True, "deflate": True}
    assert not _negotiate(ALL_ON, **both).snappy
    assert _negotiate(replace(ALL_ON, snappy=False), feature_negotiation=True, **both).deflate
    assert _negotiate(replace(ALL_ON, deflate=False), feature_negotiation=True, **both).snappy


def test_features_need_the_node_and_the_client_and_negotiation() -> None:
    for key in ("tls", "deflate", "snappy"):
        asked = {"tls_v1" if key == "tls" else key: True}
        assert getattr(_negotiate(ALL_ON, feature_negotiation=True, **asked), key)
        assert not getattr(_negotiate(replace(ALL_ON, **{key: False}), feature_negotiation=True, **asked), key)
        assert not getattr(_negotiate(ALL_ON, **asked), key)
        assert not getattr(_negotiate(ALL_ON, feature_negotiation=True), key)


@pytest.mark.parametrize(
    ("asked", "most", "level"),
    [(0, 6, 6), (-1, 6, 6), (3, 6, 3), (6, 6, 6), (9, 6, 6), (0, 4, 4), (9, 9, 9), (5, 3, 3)],
)
def test_deflate_level(asked: int, most: int, level: int) -> None:
    limits = replace(ALL_ON, max_deflate_level=most)
    said = _negotiate(limits, feature_negotiation=True, deflate=True, deflate_level=asked)
    assert said.deflate_level == level
    without = _negotiate(limits, feature_negotiation=True, deflate_level=asked)
    assert without.deflate_level == min(6, most)


# -- the answer ------------------------------------------------------------------------------------------------------


def test_without_negotiation_the_answer_is_ok() -> None:
    assert answer(_negotiate(), LIMITS) == b"OK"
    assert answer(_negotiate(feature_negotiation=False, heartbeat_interval=1000), LIMITS) == b"OK"


def test_the_default_answer_is_nsqds() -> None:
    assert answer(_negotiate(feature_negotiation=True), LIMITS) == (
        b'{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":60000,"tls_v1":false,'
        b'"deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false,"sample_rate":0,"auth_required":false,'
        b'"output_buffer_size":16384,"output_buffer_timeout":250}'
    )


def test_the_answer_says_what_is_in_force() -> None:
    limits = replace(ALL_ON, max_rdy_count=7, max_msg_timeout_ns=100_000 * MS, max_deflate_level=8, auth_required=True)
    said = _negotiate(
        limits,
        feature_negotiation=True,
        tls_v1=True,
        deflate=True,
        deflate_level=7,
        sample_rate=42,
        msg_timeout=2500,
        output_buffer_size=-1,
    )
    assert json.loads(answer(said, limits)) == {
        "max_rdy_count": 7,
        "version": "1.3.0",
        "max_msg_timeout": 100_000,
        "msg_timeout": 2500,
        "tls_v1": True,
        "deflate": True,
        "deflate_level": 7,
        "max_deflate_level": 8,
        "snappy": False,
        "sample_rate": 42,
        "auth_required": True,
        "output_buffer_size": 1,
        "output_buffer_timeout": 0,
    }


def test_a_second_identify_applies_wholly() -> None:
    """nsqd leaves the delivery side as the first one set it; 0 and null keep what is in force."""
    first = _negotiate(client_id="a", sample_rate=10, msg_timeout=5000, heartbeat_interval=-1, output_buffer_size=100)
    second = _negotiate(current=first, hostname="h")
    assert (second.client_id, second.hostname, second.sample_rate) == ("", "h", 0)
    assert (second.msg_timeout_ns, second.heartbeat_interval_ns, second.output_buffer_size) == (5000 * MS, 0, 100)
    third = _negotiate(current=second, msg_timeout=6000, heartbeat_interval=2000, sample_rate=5)
    assert (third.msg_timeout_ns, third.heartbeat_interval_ns, third.sample_rate) == (6000 * MS, 2000 * MS, 5)


# -- anything --------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    ["client_id", "heartbeat_interval", "output_buffer_size", "sample_rate", "tls_v1", "DEFLATE", "x", "msg_timeout"]
)
SCALARS = st.sampled_from([None, True, False, 0, -1, 1, 99, 1000, 2**40, 2**70, 0.0, 1e300, "", "x", "\ud800"])
VALUES = SCALARS | st.integers() | st.lists(SCALARS, max_size=2) | st.dictionaries(KEYS, SCALARS, max_size=2)


@given(st.dictionaries(KEYS, VALUES, max_size=6).map(json.dumps).map(str.encode) | st.binary(max_size=60))
def test_any_body_is_an_identity_or_an_error_with_a_text(body: bytes) -> None:
    try:
        said = negotiate(body, BEFORE, ALL_ON)
    except FatalClientError as refused:
        assert refused.payload.startswith((b"E_BAD_BODY IDENTIFY ", b"E_IDENTIFY_FAILED "))
        return
    for field in fields(Identity):
        assert type(getattr(said, field.name)) is field.type
    assert said.heartbeat_interval_ns in (0, *range(1_000 * MS, 60_000 * MS + 1, MS))
    assert 0 <= said.sample_rate <= 99
