"""Answers of auth servers; how each kind is taken by nsqd is in proto_fixtures/auth."""

import json
from typing import Any

import pytest

from pynsqd.wire.authorization import Grant, parse_grant


def grant(*authorizations: dict[str, Any], **fields: Any) -> Grant:
    return parse_grant(json.dumps({"ttl": 60, "authorizations": authorizations} | fields).encode())


def rule(topic: str, channels: list[str], *permissions: str) -> dict[str, Any]:
    return {"topic": topic, "channels": channels, "permissions": permissions}


def test_answer() -> None:
    found = grant(rule("t", ["c"], "publish"), rule("u", []), ttl=7, identity="me<", identity_url="http://me")
    assert (found.identity, found.identity_url, found.ttl_s) == ("me<", "http://me", 7)
    assert found.response() == b'{"identity":"me\\u003c","identity_url":"http://me","permission_count":2}'


@pytest.mark.parametrize(
    ("one", "publish", "subscribe"),
    [
        (rule("t", [".*"], "publish", "subscribe"), True, True),
        (rule("t", [".*"], "publish"), True, False),
        (rule("t", [".*"], "subscribe"), False, True),
        (rule("t", [".*"]), False, False),
        (rule("t", [], "publish", "subscribe"), False, False),
        (rule("t", ["^chan$"], "publish", "subscribe"), False, True),
        (rule("t", ["x", "", "y"], "publish", "subscribe"), True, True),
        (rule("u", [".*"], "publish", "subscribe"), False, False),
        (rule("^topi", ["han"], "publish", "subscribe"), False, True),
    ],
)
def test_what_is_allowed(one: dict[str, Any], publish: bool, subscribe: bool) -> None:
    found = grant(rule("zzz", ["zzz"], "publish", "subscribe"), one)
    assert found.allows("topic", "") is publish
    assert found.allows("topic", "chan") is subscribe


@pytest.mark.parametrize(
    "answer",
    [
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": 1, "authorizations": [1]},
        {"ttl": 1, "authorizations": [rule("t", ["("], "publish")]},
        {"ttl": 1, "authorizations": [rule("(", [], "publish")]},
        {"ttl": 1, "authorizations": [rule("t", [], "admin")]},
        {"ttl": 1, "authorizations": [{"channels": [1]}]},
        {"ttl": 1, "authorizations": [{"permissions": [["publish"]]}]},
    ],
)
def test_bad_answer(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parse_grant(json.dumps(answer).encode())


def test_patterns_are_bounded_together() -> None:
    with pytest.raises(ValueError, match="too large"):
        grant(*(rule(f"a{{{n}}}", []) for n in range(800, 1000)))
    assert len(grant(*(rule(f"^topic-{n}$", [".*"], "publish") for n in range(3000))).authorizations) == 3000


def test_a_decision_that_takes_too_long_is_no() -> None:
    costly = grant(*(rule("(?:a?){900}b", [".*"], "publish") for _ in range(20)), rule(".*", [".*"], "publish"))
    assert not costly.allows("a" * 64, "")  # the last rule, which is not reached, would allow it
    assert costly.allows("b", "")
