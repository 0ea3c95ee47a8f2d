"""Go's %q (PROTOCOL 1.1)."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.wire.quote import quote


@pytest.mark.parametrize(
    ("raw", "quoted"),
    [
        (b"", '""'),
        (b"abc #-", '"abc #-"'),
        (b'a"b', '"a\\"b"'),
        (b"a\\b", '"a\\\\b"'),
        (b"a'b", '"a\'b"'),
        (b"\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        (b"\0\x01\x1f\x7f", '"\\x00\\x01\\x1f\\x7f"'),
        (b"\xff\xfe", '"\\xff\\xfe"'),
        (b"a\x80b", '"a\\x80b"'),
        (b"\xc3", '"\\xc3"'),  # the first half of a character
        (b"\xed\xa0\x80", '"\\xed\\xa0\\x80"'),  # a surrogate is no UTF-8
        (b"\xc0\xaf", '"\\xc0\\xaf"'),  # nor is an overlong form
        ("é✓😀".encode(), '"é✓😀"'),
        ("\ufffd".encode(), '"\ufffd"'),  # the replacement character itself is printable
        ("\u0085\u00a0\u00ad".encode(), '"\\u0085\\u00a0\\u00ad"'),
        ("\u2028".encode(), '"\\u2028"'),
        ("\ue000".encode(), '"\\ue000"'),
        ("\U000e0001".encode(), '"\\U000e0001"'),
        ("\U0010ffff".encode(), '"\\U0010ffff"'),
    ],
)
def test_as_go_prints_it(raw: bytes, quoted: str) -> None:
    assert quote(raw) == quoted


@given(st.text().map(str.encode))
def test_text_reads_back(raw: bytes) -> None:
    assert ast.literal_eval(quote(raw)).encode() == raw


@given(st.binary())
def test_any_bytes_give_printable_text(raw: bytes) -> None:
    quoted = quote(raw)
    assert quoted.isprintable()
    assert quoted.encode("utf-8")  # no surrogate is left in it
    assert quoted[0] == quoted[-1] == '"'
    assert '"' not in quoted[1:-1].replace("\\\\", "").replace('\\"', "")
