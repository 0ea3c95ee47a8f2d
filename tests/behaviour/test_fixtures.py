"""Every golden exchange of proto_fixtures/ against the real sockets of a real process."""

from collections.abc import Callable, Iterator
from copy import deepcopy

import anyio
import pytest

from tests.support.daemons import is_reference
from tests.support.fixtures import WAITS_FOR, Event, Fixture, bind, encode, load_all
from tests.support.replay import replay_all

TARGET = "nsqd" if is_reference() else "pynsqd"
FIXTURES = {str(fixture): fixture for fixture in load_all()}


def params() -> Iterator[object]:
    for name, fixture in FIXTURES.items():
        waits = fixture.waits_for and TARGET == "pynsqd"
        marks = [pytest.mark.skip(reason=f"waits for {fixture.waits_for}")] if waits else []
        yield pytest.param(name, id=name, marks=marks)


@pytest.fixture(scope="module")
def failures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Replay all that this session asks for, side by side: most of a replay is waiting."""
    wanted = [
        FIXTURES[str(item.callspec.params["name"])]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_replays and not any(item.iter_markers("skip"))
    ]
    return anyio.run(replay_all, wanted, TARGET, tmp_path_factory.mktemp("replays"))


@pytest.mark.parametrize("name", list(params()))
def test_replays(name: str, failures: dict[str, str]) -> None:
    if name in failures:
        pytest.fail(failures[name], pytrace=False)


@pytest.mark.parametrize("name", FIXTURES)
def test_file_is_in_the_one_format(name: str) -> None:
    fixture = FIXTURES[name]
    assert fixture.path.read_text() == fixture.dump()
    assert fixture.waits_for in ("", *WAITS_FOR)
    assert fixture.origin in ("transcripts", "record")
    only = {event["only"] for event in fixture.events if "only" in event}
    assert only <= {"nsqd", "pynsqd"}
    assert bool(only) == bool(fixture.deviation), "a different answer needs its reason, and a reason an answer"


def test_data_is_bytes_int32s_repeats_ids_and_times() -> None:
    bound: dict[str, bytes] = {}
    data = ["\xff", 1, -1, {"repeat": "ab", "times": 2}, {"id": "m"}, {"time": "m"}]
    raw = b"\xff\0\0\0\x01\xff\xff\xff\xffabab0123456789abcdef\0\0\0\0\0\0\0\x05"
    with pytest.raises(KeyError):
        encode(data, bound)
    bind(data, raw, bound)
    assert bound == {"m": b"0123456789abcdef", "m time": b"\0\0\0\0\0\0\0\x05"}
    assert encode(data, bound) == raw
    assert encode("\xe9", bound) == b"\xe9"


# ---- the replay has to notice what is wrong: a right fixture with one event changed


def event(fixture: Fixture, **fields: object) -> Event:
    return next(event for event in fixture.events if fields.items() <= event.items())


WRONG: dict[str, tuple[str, Callable[[Fixture], object]]] = {
    "body": ("publish/pub_ok_and_delivered", lambda f: event(f, id="id1").update(data="hello worlds")),
    "attempts": ("publish/pub_ok_and_delivered", lambda f: event(f, id="id1").update(attempts=2)),
    "frame": ("publish/pub_ok_and_delivered", lambda f: event(f, conn="p", frame="response").update(frame="error")),
    "text": ("wire/magic_bad", lambda f: event(f, op="recv").update(data="E_BAD_PROTOCOLS")),
    "closes": ("wire/magic_bad", lambda f: event(f, op="closed").update(op="quiet", ms=500)),
    "stays open": ("wire/nop_has_no_response", lambda f: event(f, op="quiet").update(op="closed", within_ms=200)),
    "sends more": ("publish/mpub_ok", lambda f: event(f, id="id1").update(op="quiet", ms=200)),
    "sends less": ("publish/mpub_ok", lambda f: f.events.append(event(f, id="id3") | {"within_ms": 200})),
    "same id": ("publish/mpub_ok", lambda f: event(f, id="id2").update(id="id1")),
    "another id": ("delivery/req_immediate_and_deferred", lambda f: event(f, attempts=2).update(id="id2")),
    "status": ("http/http_ping_info", lambda f: event(f, op="http").update(status=201)),
    "headers": ("http/http_ping_info", lambda f: event(f, op="http").update(kind="text")),
    "http body": ("http/http_ping_info", lambda f: event(f, op="http").update(response="OKAY")),
    "exit status": ("delivery/graceful_shutdown_closes", lambda f: event(f, op="exit").update(status=1)),
    "v1": ("lookupd/lookupd_magic", lambda f: event(f, op="recv").update(data="OK")),
}


@pytest.fixture(scope="module")
def noticed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Replay the wrong ones side by side."""
    wrong = []
    for name, (path, change) in WRONG.items():
        fixture = deepcopy(FIXTURES[path])
        fixture.name = name
        fixture.events = [event for event in fixture.events if event["op"] != "wait"]
        change(fixture)
        wrong.append(fixture)
    return anyio.run(replay_all, wrong, TARGET, tmp_path_factory.mktemp("wrong"))


@pytest.mark.parametrize("name", WRONG)
def test_replay_notices_a_wrong(name: str, noticed: dict[str, str]) -> None:
    group = WRONG[name][0].partition("/")[0]
    assert f"{group}/{name}" in noticed
