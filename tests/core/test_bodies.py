"""Bounds of bodies (PROTOCOL 1.4)."""

import pytest

from pynsqd.core.bodies import AUTH, DPUB, IDENTIFY, MPUB, PUB, BodyRule
from pynsqd.options import Options
from pynsqd.wire.errors import FatalClientError

OPTIONS = Options(max_msg_size=100, max_body_size=1000)


@pytest.mark.parametrize("rule", [PUB, DPUB])
def test_messages(rule: BodyRule) -> None:
    verb = rule.verb
    told = {}
    for size in (-(2**31), -1, 0, 101, 2**31 - 1):
        with pytest.raises(FatalClientError) as caught:
            rule.check(size, OPTIONS)
        told[size] = str(caught.value)
    assert told == {
        -(2**31): f"E_BAD_MESSAGE {verb} invalid message body size -2147483648",
        -1: f"E_BAD_MESSAGE {verb} invalid message body size -1",
        0: f"E_BAD_MESSAGE {verb} invalid message body size 0",
        101: f"E_BAD_MESSAGE {verb} message too big 101 > 100",
        2**31 - 1: f"E_BAD_MESSAGE {verb} message too big 2147483647 > 100",
    }
    for size in (1, 100):
        rule.check(size, OPTIONS)


@pytest.mark.parametrize("rule", [IDENTIFY, AUTH, MPUB])
def test_the_others(rule: BodyRule) -> None:
    verb = rule.verb
    told = {}
    for size in (-1, 0, 1001):
        with pytest.raises(FatalClientError) as caught:
            rule.check(size, OPTIONS)
        told[size] = str(caught.value)
    assert told == {
        -1: f"E_BAD_BODY {verb} invalid body size -1",
        0: f"E_BAD_BODY {verb} invalid body size 0",
        1001: f"E_BAD_BODY {verb} body too big 1001 > 1000",
    }
    for size in (1, 1000):
        rule.check(size, OPTIONS)


def test_every_rule_names_its_command() -> None:
    assert [rule.verb for rule in (IDENTIFY, AUTH, PUB, DPUB, MPUB)] == ["IDENTIFY", "AUTH", "PUB", "DPUB", "MPUB"]
