"""What an auth server answers: whom a secret belongs to and what they may do (PROTOCOL 1.15). Pure."""

from dataclasses import dataclass
from typing import Any, Final

from pynsqd.wire.go_json import decode_json, encode_json, fields, scalars
from pynsqd.wire.patterns import Effort, Pattern, PatternError, compiled

_MAX_SIZE: Final = 100_000  # of all patterns of an answer, which bounds what it takes in memory
_EFFORT: Final = 500_000  # of one decision: about 0.1 s
_ANSWER: Final = {"ttl": int, "identity": str, "identity_url": str, "authorizations": list}
_AUTHORIZATION: Final = {"topic": str, "channels": list, "permissions": list}


@dataclass(frozen=True, slots=True)
class Authorization:
    """Permissions for the channels that one of ``channels`` matches, in the topics that ``topic`` matches."""

    topic: Pattern
    channels: tuple[Pattern, ...]
    permissions: frozenset[str]  # of "publish" and "subscribe"


@dataclass(frozen=True, slots=True)
class Grant:
    """A valid answer; it holds for ``ttl_s`` seconds."""

    identity: str
    identity_url: str
    ttl_s: int
    authorizations: tuple[Authorization, ...]

    def allows(self, topic: str, channel: str) -> bool:
        """Tell whether subscribing to ``channel`` is allowed, or without one, publishing to ``topic``.

        Publishing asks for the empty channel, so an authorization without channels allows nothing.
        """
        permission = "subscribe" if channel else "publish"
        effort = Effort(_EFFORT)
        try:
            return any(
                permission in one.permissions
                and one.topic.matches(topic, effort)
                and any(pattern.matches(channel, effort) for pattern in one.channels)
                for one in self.authorizations
            )
        except PatternError:
            return False

    def response(self) -> bytes:
        """Return the payload of the response to AUTH."""
        count = len(self.authorizations)
        return encode_json({"identity": self.identity, "identity_url": self.identity_url, "permission_count": count})


def parse_grant(body: bytes) -> Grant:
    """Read the answer of an auth server. Raises ValueError, without data in its text, for what nsqd does not take."""
    answer = fields(decode_json(body), _ANSWER)
    ttl_s = answer.get("ttl", 0)
    if ttl_s <= 0:
        raise ValueError("ttl is not positive")
    authorizations = []
    size = 0
    for one in answer.get("authorizations", ()):
        authorization = _authorization(one)
        size += authorization.topic.size + sum(pattern.size for pattern in authorization.channels)
        if size > _MAX_SIZE:
            raise ValueError("the patterns are too large")
        authorizations.append(authorization)
    return Grant(answer.get("identity", ""), answer.get("identity_url", ""), ttl_s, tuple(authorizations))


def _authorization(value: object) -> Authorization:
    found = fields(value, _AUTHORIZATION)
    permissions = frozenset(_texts(found.get("permissions", ())))
    if not permissions <= {"publish", "subscribe"}:
        raise ValueError("an unknown permission")
    channels = tuple(compiled(one) for one in _texts(found.get("channels", ())))
    return Authorization(compiled(found.get("topic", "")), channels, permissions)


def _texts(values: list[Any] | tuple[()]) -> list[str]:
    """Return the strings of a list; a null is an empty one, as in Go."""
    if not all(one is None or type(one) is str for one in values):
        raise ValueError("no list of strings")
    return [scalars(one or "") for one in values]
