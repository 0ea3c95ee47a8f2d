"""What an auth server answers: JSON, with patterns that a name is held against."""

import json
from collections.abc import Iterable

from pynsqd.wire.authorization import parse_grant

_NAMES = ("t", "orders", "a" * 64, "x.y_z-1#ephemeral", "0" * 30 + "!")


def seeds() -> Iterable[bytes]:
    """Return answers with patterns of each kind."""
    patterns = [
        ".*",
        "^(a|b+)*$",
        "(a*)*(a*)*b",
        "[[:alpha:]]{1,9}\\d\\W",
        "(?i:X)|\\bfoo\\B|[^a-z]?",
        "a{1000}",
        "(((a{99}){99}){99})",
        "(" * 900,
        "[z-a]",
        "\\pL\\x{41}\\Q.*\\E",
        "(?P<n>a)",
        "*",
    ]
    for pattern in patterns:
        one = {"topic": pattern, "channels": [pattern, ".*"], "permissions": ["subscribe", "publish"]}
        yield json.dumps({"ttl": 60, "identity": "i", "identity_url": "u", "authorizations": [one]}).encode()
    for wrong in (
        {},
        [],
        {"ttl": 1e99},
        {"ttl": -1},
        {"ttl": 1, "authorizations": {}},
        {"ttl": 1, "authorizations": [1]},
    ):
        yield json.dumps(wrong).encode()
    yield b"[" * 3000


def run(data: bytes) -> None:
    """Raise unless it is refused, or says of every name whether it is allowed."""
    try:
        grant = parse_grant(data)
    except ValueError as error:
        assert len(str(error)) < 200
        return
    assert grant.ttl_s > 0
    for name in _NAMES:
        assert grant.allows(name, "") in (True, False)
        assert grant.allows(name, name) in (True, False)
    json.loads(grant.response())
