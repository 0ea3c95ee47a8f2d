"""Sessions of a node with auth servers: what waits, in which order it goes on, and what ends the waiting."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core.authority import Answered, Question
from pynsqd.core.security import Security
from pynsqd.wire.authorization import Grant, parse_grant
from tests.support.session_wire import CLOSE_WAIT, HEARTBEAT, OK, Client, Node, command, error, identify_command, mpub
from tests.support.wire import RESPONSE, Frame

ALL = {"topic": ".*", "channels": [".*"], "permissions": ["publish", "subscribe"]}
WELCOME = Frame(RESPONSE, b'{"identity":"me","identity_url":"","permission_count":1}')
AUTH = command(b"AUTH", b"secret")


class FakeAuthority:
    """Keeps the questions until the test answers them."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.waiting: list[Answered] = []
        self.given_up = 0

    def ask(self, question: Question, answered: Answered) -> Callable[[], None]:
        self.questions.append(question)
        self.waiting.append(answered)
        return self._give_up

    def _give_up(self) -> None:
        self.given_up += 1


class Guarded:
    """A node, its authority and one client."""

    def __init__(self) -> None:
        self.authority = FakeAuthority()
        self.node = Node(authority=self.authority)
        self.client: Client = self.node.client()

    def ask(self, data: bytes) -> list[Frame]:
        return self.client.ask(data)

    def answer(self, *authorizations: dict[str, Any], valid: bool = True, ttl: int = 60) -> list[Frame]:
        body = json.dumps({"ttl": ttl, "identity": "me", "authorizations": authorizations or [ALL]}).encode()
        grant: Grant | None = parse_grant(body) if valid else None
        self.authority.waiting.pop(0)(grant, self.node.now_ns)
        self.node.turn()
        return self.client.take()


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def test_commands_wait_for_the_answer_in_order(guarded: Guarded) -> None:
    assert guarded.ask(AUTH + command(b"PUB t", b"x") + b"SUB t c\n" + b"RDY 5\n") == []
    assert guarded.client.paused
    assert guarded.ask(command(b"PUB t", b"y")) == []  # came in spite of that
    welcome, *oks, first, second = guarded.answer()
    assert [welcome, *oks] == [WELCOME, OK, OK, OK]
    assert (first.payload[26:], second.payload[26:]) == (b"x", b"y")
    assert not guarded.client.paused
    (question,) = guarded.authority.questions
    assert (question.secret, question.remote_ip, question.tls) == (b"secret", "10.0.0.1", False)
    assert "secret" not in repr(question).replace("secret=", "")


@pytest.mark.parametrize(
    ("one", "verb"),
    [
        (command(b"PUB t", b"x"), "PUB"),
        (command(b"DPUB t 1", b"x"), "DPUB"),
        (b"MPUB t\n", "MPUB"),
        (b"SUB t c\n", "SUB"),
    ],
)
def test_what_needs_auth(guarded: Guarded, one: bytes, verb: str) -> None:
    assert guarded.ask(one) == [error(f"E_AUTH_FIRST AUTH required before {verb}")]
    assert guarded.client.closed
    assert not guarded.node.broker.topics


@pytest.mark.parametrize(
    ("address", "remote_ip"),
    [("10.0.0.1:4", "10.0.0.1"), ("[::1]:4", "::1"), ("@", ""), ("[fe80::1%eth0]:4", "fe80::1%eth0")],
)
def test_address_of_the_client(address: str, remote_ip: str, guarded: Guarded) -> None:
    Client(guarded.node, address).ask(b"  V2" + AUTH)
    assert guarded.authority.questions[0].remote_ip == remote_ip


@given(st.lists(st.integers(0, 200), max_size=8), st.integers(0, 9))
def test_it_makes_no_difference_how_it_is_cut_and_when_the_answer_comes(cuts: list[int], late: int) -> None:
    """The same answers, whether all comes at once or byte by byte, before the answer of the auth server or after."""
    stream = AUTH + command(b"PUB t", b"x") + mpub(b"u", [b"a", b"b"]) + b"NOP\n" + command(b"DPUB t 0", b"y") * 3
    stream += b"SUB t c\nRDY 0\nCLS\n" + command(b"PUB t", b"z") + b"BAD\n" + command(b"PUB t", b"never")
    guarded = Guarded()
    answers: list[Frame] = []
    ends = [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        answers += guarded.ask(stream[start:end])
        if number >= late and guarded.authority.waiting:
            answers += guarded.answer()
    if guarded.authority.waiting:
        answers += guarded.answer()
    assert answers == [WELCOME, *[OK] * 6, CLOSE_WAIT, OK, error("E_INVALID invalid command BAD")]
    assert guarded.client.closed
    assert guarded.node.topic().message_count == 5


def test_others_do_not_wait(guarded: Guarded) -> None:
    guarded.ask(AUTH)
    other = guarded.node.client()
    assert other.ask(AUTH) == []
    guarded.authority.waiting.pop()(parse_grant(json.dumps({"ttl": 1, "authorizations": [ALL]}).encode()), 0)
    guarded.node.turn()
    assert len(other.take()) == 1
    assert guarded.client.take() == []


def test_bodies_that_come_while_it_waits(guarded: Guarded) -> None:
    data = AUTH + mpub(b"t", [b"a", b"b"]) + command(b"DPUB t 10", b"c")
    for at in range(0, len(data), 5):
        assert guarded.ask(data[at : at + 5]) == []
    assert guarded.answer() == [WELCOME, OK, OK]
    assert guarded.node.topic().message_count == 3


def test_the_end_comes_after_the_answer(guarded: Guarded) -> None:
    guarded.ask(AUTH + command(b"PUB t", b"x") + b"PUB t\n")
    assert guarded.client.eof() == []
    assert not guarded.client.closed
    assert guarded.answer() == [WELCOME, OK, error("E_BAD_MESSAGE PUB failed to read message body size")]
    assert guarded.client.closed


def test_who_leaves_gives_the_question_up(guarded: Guarded) -> None:
    guarded.ask(AUTH)
    guarded.client.drop()
    assert guarded.authority.given_up == 1
    guarded.answer()  # an answer that was under way changes nothing
    assert not guarded.node.broker.sessions


def test_heartbeats_go_on_and_the_deadline_does_not(guarded: Guarded) -> None:
    guarded.ask(identify_command(heartbeat_interval=1000))
    guarded.ask(AUTH)
    guarded.node.advance(s=5.5)
    assert guarded.client.take() == [HEARTBEAT] * 5
    assert not guarded.client.closed
    assert guarded.answer() == [WELCOME]
    guarded.node.advance(s=1.9)
    assert not guarded.client.closed
    guarded.node.advance(s=0.2)
    assert guarded.client.closed


def test_without_heartbeats_half_a_command_has_its_deadline_before_and_after(guarded: Guarded) -> None:
    guarded.ask(identify_command(heartbeat_interval=-1))
    guarded.ask(AUTH[:8])
    guarded.node.advance(s=1)
    guarded.ask(AUTH[8:])
    guarded.node.advance(s=600)
    assert not guarded.client.closed
    assert guarded.answer(ttl=3600) == [WELCOME]
    guarded.node.advance(s=600)
    assert guarded.ask(command(b"PUB t", b"x") + b"PUB t\n") == [OK]
    guarded.node.advance(s=600)
    assert guarded.client.closed


def test_expired_answer_is_asked_for_again_once(guarded: Guarded) -> None:
    guarded.ask(AUTH)
    assert guarded.answer(ttl=2) == [WELCOME]
    guarded.node.advance(s=1.9)
    assert guarded.ask(command(b"PUB t", b"x")) == [OK]
    guarded.node.advance(s=0.1)
    assert guarded.ask(b"NOP\n") == []
    assert not guarded.authority.waiting
    assert guarded.ask(command(b"PUB t", b"y") + command(b"PUB t", b"z")) == []
    assert guarded.answer(ttl=2) == [OK, OK]
    assert [question.secret for question in guarded.authority.questions] == [b"secret"] * 2
    assert guarded.ask(AUTH) == [error("E_INVALID AUTH already set")]


def test_permissions_follow_the_new_answer(guarded: Guarded) -> None:
    guarded.ask(AUTH)
    guarded.answer(ttl=1)
    assert guarded.ask(command(b"PUB t", b"x")) == [OK]
    guarded.node.advance(s=1)
    guarded.ask(command(b"PUB t", b"x"))
    other = ALL | {"topic": "other"}
    assert guarded.answer(other) == [error('E_UNAUTHORIZED AUTH failed for PUB on "t" ""')]
    assert guarded.client.closed


def test_existing_subscription_is_not_checked_again(guarded: Guarded) -> None:
    guarded.ask(AUTH + b"SUB t c\nRDY 5\n")
    guarded.answer(ttl=1)
    guarded.node.advance(s=5)
    topic = guarded.node.topic()
    topic.publishes.publish(b"x", guarded.client.session, "PUB")
    guarded.node.turn()
    (message,) = guarded.client.messages()
    assert guarded.ask(b"FIN " + message.id + b"\nRDY 1\n") == []
    assert not guarded.authority.waiting


def test_refused_publish_makes_no_topic(guarded: Guarded) -> None:
    guarded.ask(AUTH)
    guarded.answer(ALL | {"topic": "^allowed$"})
    assert guarded.ask(command(b"PUB allowed", b"x")) == [OK]
    assert guarded.ask(b"SUB other c\n") == [error('E_UNAUTHORIZED AUTH failed for SUB on "other" "c"')]
    assert list(guarded.node.broker.topics) == ["allowed"]


def test_shutdown_while_it_waits(guarded: Guarded) -> None:
    guarded.ask(AUTH)
    guarded.node.broker.close_sessions()
    guarded.node.turn()
    assert guarded.client.closed
    assert guarded.authority.given_up == 1


def test_the_question_has_what_tls_has_shown(guarded: Guarded) -> None:
    guarded.client.session.security = Security("TLS1.3", "Unknown 4865", "shop")
    guarded.ask(AUTH)
    (question,) = guarded.authority.questions
    assert (question.tls, question.common_name) == (True, "shop")


def test_an_upgrade_that_waited_for_the_answer_is_due_then(guarded: Guarded) -> None:
    """Nothing may be read as commands before its layers are there."""
    upgrade = identify_command(feature_negotiation=True, deflate=True)
    assert guarded.ask(AUTH + upgrade + b"compressed") == []
    assert guarded.client.pipelined is None
    welcome, identified = guarded.answer()
    assert (welcome, identified.type) == (WELCOME, RESPONSE)
    assert (guarded.client.pipelined, guarded.client.paused) == (b"compressed", True)
