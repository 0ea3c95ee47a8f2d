"""Real clients against real daemons, through lookupd: the guarantees of the conformance scenario (README.md).

All clients play at the same time, each with a node of its own; the tests then look at what happened.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.interop.runs import Event, Run, clients, play
from tests.support.daemons import Daemon, is_reference

CLIENTS = clients()
SINGLE = [f"single-{i}" for i in range(10)]
BATCH = [f"batch-{i}" for i in range(25)]
AFTER = [f"after-{i}" for i in range(5)]
SPECIAL = ["deferred", "requeue", "timeout", "touch"]
BEFORE_RESTART = SINGLE + BATCH + SPECIAL
STOPPING = {"go-nsq": ["stopping"]}  # the one that finishes what is in flight after CLS

DELAY_MS = 500
MSG_TIMEOUT_MS = 1_000
HELD_TOUCHED_MS = 1_600
CLOCK_MS = 2  # a driver's clock is cut to whole milliseconds
UNDERWAY_MS = 500  # a deadline starts at the node, some time (an output buffer's 250 ms) before the client's clock does
LATE_MS = 6_000 if is_reference() else 2_000  # nsqd itself is up to 5 s late on a new channel (PROTOCOL 3.8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Run]]]:
    """Let every client that is there play; they wait most of the time."""
    with (
        Daemon("nsqlookupd", data_path=tmp_path_factory.mktemp("lookupd")) as lookupd,
        ThreadPoolExecutor(len(CLIENTS)) as pool,
    ):
        yield {
            name: pool.submit(play, client, name, lookupd, tmp_path_factory.mktemp(name))
            for name, client in CLIENTS.items()
            if not client.missing
        }


@pytest.fixture(params=CLIENTS)
def name(request: pytest.FixtureRequest) -> str:
    """The client; without its runtime a test is skipped, but not on CI."""
    name: str = request.param
    if missing := CLIENTS[name].missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name}: {missing}")
    return name


@pytest.fixture
def run(name: str, runs: dict[str, Future[Run]]) -> Run:
    """Its run, when it is over."""
    return runs[name].result()


def only(events: list[Event]) -> Event:
    [event] = events
    return event


def test_client_plays_to_its_end(name: str, run: Run) -> None:
    finished = {event.body for event in run.events if event.what == "finished"}
    missing = {*BEFORE_RESTART, *AFTER, *STOPPING.get(name, [])} - finished
    assert (run.exit_code, missing) == (0, set()), run.stderr


@pytest.mark.parametrize("bodies", [SINGLE, BATCH, AFTER], ids=["PUB", "MPUB", "PUB after a restart"])
def test_message_is_delivered_once(run: Run, bodies: list[str]) -> None:
    deliveries = {body: [event.attempts for event in run.of(body, "delivered")] for body in bodies}
    assert deliveries == {body: [1] for body in bodies}


def test_deferred_message_waits_for_its_time(run: Run) -> None:
    delivered = only(run.of("deferred", "delivered"))
    waited_ms = delivered.at_ms - only(run.of("deferred", "publishing")).at_ms
    assert delivered.attempts == 1
    assert DELAY_MS - CLOCK_MS <= waited_ms <= DELAY_MS + LATE_MS


def test_requeued_message_comes_back_after_its_delay(run: Run) -> None:
    first, second = run.of("requeue", "delivered")
    assert (first.attempts, second.attempts) == (1, 2)
    waited_ms = second.at_ms - only(run.of("requeue", "requeuing")).at_ms
    assert DELAY_MS - CLOCK_MS <= waited_ms <= DELAY_MS + LATE_MS


def test_unanswered_message_comes_back_after_the_timeout_of_identify(run: Run) -> None:
    first, second = run.of("timeout", "delivered")
    assert (first.attempts, second.attempts) == (1, 2)
    assert MSG_TIMEOUT_MS - UNDERWAY_MS <= second.at_ms - first.at_ms <= MSG_TIMEOUT_MS + LATE_MS


def test_touched_message_stays_past_its_timeout(run: Run) -> None:
    delivered = only(run.of("touch", "delivered"))
    assert only(run.of("touch", "finished")).at_ms - delivered.at_ms >= HELD_TOUCHED_MS - CLOCK_MS


def test_node_saw_one_connection_do_it_all(name: str, run: Run) -> None:
    """One connection from SUB to the restart: heartbeats were answered, and a late FIN (E_FIN_FAILED) broke nothing."""
    [client] = run.at_restart["clients"]
    assert client["user_agent"].startswith(CLIENTS[name].user_agent)
    counts = ("message_count", "requeue_count", "timeout_count", "depth", "in_flight_count", "deferred_count")
    assert [run.at_restart[count] for count in counts] == [len(BEFORE_RESTART), 1, 1, 0, 0, 0]
    assert client["finish_count"] == len(BEFORE_RESTART)


def test_client_that_stops_leaves_nothing_behind(name: str, run: Run) -> None:
    """The node took its last FINs, those after CLS and a half-closed connection too, and forgot it."""
    counts = ("message_count", "depth", "in_flight_count", "deferred_count", "clients")
    published = len(AFTER) + len(STOPPING.get(name, []))
    assert [run.at_end[count] for count in counts] == [published, 0, 0, 0, []]
