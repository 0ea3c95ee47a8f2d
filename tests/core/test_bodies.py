"""Bounds of bodies (PROTOCOL 1.4)."""

import pytest

from pynsqd.core.bodies import BODIES
from pynsqd.options import Options
from pynsqd.wire.errors import FatalClientError

OPTIONS = Options(max_msg_size=100, max_body_size=1000)


@pytest.mark.parametrize("verb", ["PUB", "DPUB"])
def test_messages(verb: str) -> None:
    told = {}
    for size in (-(2**31), -1, 0, 101, 2**31 - 1):
        with pytest.raises(FatalClientError) as caught:
            BODIES[verb].check(size, OPTIONS)
        told[size] = str(caught.value)
    assert told == {
        -(2**31): f"E_BAD_MESSAGE {verb} invalid message body size -2147483648",
        -1: f"E_BAD_MESSAGE {verb} invalid message body size -1",
        0: f"E_BAD_MESSAGE {verb} invalid message body size 0",
        101: f"E_BAD_MESSAGE {verb} message too big 101 > 100",
        2**31 - 1: f"E_BAD_MESSAGE {verb} message too big 2147483647 > 100",
    }
    for size in (1, 100):
        BODIES[verb].check(size, OPTIONS)


@pytest.mark.parametrize("verb", ["IDENTIFY", "AUTH", "MPUB"])
def test_the_others(verb: str) -> None:
    told = {}
    for size in (-1, 0, 1001):
        with pytest.raises(FatalClientError) as caught:
            BODIES[verb].check(size, OPTIONS)
        told[size] = str(caught.value)
    assert told == {
        -1: f"E_BAD_BODY {verb} invalid body size -1",
        0: f"E_BAD_BODY {verb} invalid body size 0",
        1001: f"E_BAD_BODY {verb} body too big 1001 > 1000",
    }
    for size in (1, 1000):
        BODIES[verb].check(size, OPTIONS)


def test_every_command_with_a_body_is_listed() -> None:
    assert set(BODIES) == {"IDENTIFY", "AUTH", "PUB", "DPUB", "MPUB"}
    assert all(rule.verb == verb for verb, rule in BODIES.items())
