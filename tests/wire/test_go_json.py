"""JSON as Go has it: what was asked of nsqd is in proto_fixtures/auth/auth_json.json."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.wire.go_json import decode_json, encode_json, fields

KINDS = {"n": int, "s": str, "l": list, "b": bool}


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({"b": 1, "a": [True, None, ""]}, b'{"b":1,"a":[true,null,""]}'),
        ("a<b>&c", b'"a\\u003cb\\u003e\\u0026c"'),
        ("\u2028\u2029", b'"\\u2028\\u2029"'),
        ("\xe9\x7f/", '"\xe9\x7f/"'.encode()),
        ('\x00\x1f\t\n"\\', b'"\\u0000\\u001f\\t\\n\\"\\\\"'),
        (b"a\xffb".decode("utf-8", "surrogateescape"), b'"a\\ufffdb"'),
        ({"<": 0}, b'{"\\u003c":0}'),
    ],
)
def test_json_is_encoded_as_go_does(value: object, encoded: bytes) -> None:
    assert encode_json(value) == encoded


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"null", {}),
        (b"{}", {}),
        (b' {"n":1,"s":"x","l":[],"b":true,"other":{"n":2}}\n', {"n": 1, "s": "x", "l": [], "b": True}),
        (b'{"N":1,"n":2}', {"n": 2}),
        (b'{"n":null,"s":null}', {}),
        (b'{"n":9223372036854775807}', {"n": 2**63 - 1}),
        (b'{"s":"\\ud800\xff\\ud83d\\ude00"}', {"s": "\ufffd\ufffd\U0001f600"}),
    ],
)
def test_fields_of_an_object(body: bytes, found: dict[str, object]) -> None:
    assert fields(decode_json(body), KINDS) == found


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"1", b"x", b"{}x", b"\xef\xbb\xbf{}"),
        *(b'{"n":1.0}', b'{"n":1e2}', b'{"n":"1"}', b'{"n":true}', b'{"n":9223372036854775808}'),
        *(b'{"b":1}', b'{"s":1}', b'{"l":{}}', b'{"x":NaN}', b'{"x":Infinity}'),
        b"[" * 100_000,
        b'{"n":' + b"9" * 5000 + b"}",
    ],
)
def test_what_go_does_not_take(body: bytes) -> None:
    with pytest.raises(ValueError):
        fields(decode_json(body), KINDS)


@given(st.binary(max_size=40))
def test_noise_is_a_value_or_an_error(body: bytes) -> None:
    with suppress(ValueError):
        fields(decode_json(body), KINDS)
