"""Plays the conformance scenario (README.md) with one real client and one node of its own, and keeps what happened."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

from tests.support.daemons import Daemon

HERE: Final = Path(__file__).parent
CHANNEL: Final = "conformance"
PLAY_S: Final = 120.0
SETTLE_S: Final = 30.0


@dataclass(frozen=True)
class RealClient:
    """A client and how to start its driver; `missing` says what it lacks on this machine, if anything."""

    command: list[str]
    user_agent: str
    missing: str


@dataclass(frozen=True)
class Event:
    """One line of a driver."""

    what: str
    body: str
    attempts: int
    at_ms: int


@dataclass(frozen=True)
class Run:
    """What the driver told, and the channel in the node's /stats when the driver asked to go on and after its end."""

    exit_code: int
    events: list[Event]
    stderr: str
    at_restart: dict[str, Any]
    at_end: dict[str, Any]

    def of(self, body: str, what: str) -> list[Event]:
        """Return the events of one kind of one message, in order."""
        return [event for event in self.events if (event.body, event.what) == (body, what)]


def clients() -> dict[str, RealClient]:
    """Return the clients by name."""
    built, installed = HERE / "bin" / "gonsq", HERE / "nsqjs" / "node_modules" / "nsqjs"
    set_up = "tests/interop/setup.sh has not"
    return {
        "pynsq": RealClient(*_python("pynsq_driver.py", "nsq", "pynsq")),
        "ansq": RealClient(*_python("ansq_driver.py", "ansq", "ansq")),
        "nsqjs": RealClient(
            ["node", str(HERE / "nsqjs" / "driver.js")],
            "nsqjs/",
            "no node" if not shutil.which("node") else "" if installed.exists() else f"{set_up} installed nsqjs",
        ),
        "go-nsq": RealClient(
            [str(built)],
            "go-nsq/",
            "" if built.exists() else f"{set_up} built gonsq" if shutil.which("go") else "no go",
        ),
    }


def _python(driver: str, module: str, name: str) -> tuple[list[str], str, str]:
    missing = "" if find_spec(module) else f"{name} is not installed"
    return [sys.executable, str(HERE / driver)], f"{name}/", missing


def play(
    client: RealClient,
    topic: str,
    lookupd: Daemon,
    folder: Path,
    *flags: str,
    env: dict[str, str] | None = None,
    layers: dict[str, str] | None = None,
) -> Run:
    """Start a node, let the driver play against it, restart the node where the driver asks for it.

    ``flags`` are the node's, ``env`` is the driver's. With ``layers`` it is the short scenario, by TLS or compression.
    """
    lookup_tcp, lookup_http = _address(lookupd.tcp), _address(lookupd.http)
    node = Daemon("nsqd", f"--lookupd-tcp-address={lookup_tcp}", *flags, data_path=folder).start()
    command = [*client.command, lookup_http, topic] + ([json.dumps(layers)] if layers is not None else [])
    at_restart: dict[str, Any] = {}
    events: list[Event] = []
    try:
        _post(node, "/topic/create", topic=topic)
        _wait_until(lambda: _known(lookupd, topic), "lookupd does not know the node's topic")
        with (folder / "driver.stderr").open("w+") as stderr:
            with _driver(command, stderr, env or {}) as driver:
                assert driver.stdin is not None
                assert driver.stdout is not None
                for line in driver.stdout:
                    events.append(Event(**json.loads(line)))
                    if events[-1].what in ("restart", "connected"):
                        at_restart = _settled(node, topic, clients=1)
                        if events[-1].what == "restart":
                            node = _restarted(node)
                        driver.stdin.write("go on\n")
                        driver.stdin.flush()
            stderr.seek(0)
            errors = stderr.read()
        return Run(driver.returncode, events, errors, at_restart, _settled(node, topic, clients=0))
    finally:
        node.kill()


class _driver:
    """A driver's process, killed when it takes longer than PLAY_S."""

    def __init__(self, command: list[str], stderr: IO[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ | env
        )
        self.alarm = threading.Timer(PLAY_S, self.process.kill)

    def __enter__(self) -> "subprocess.Popen[str]":
        self.alarm.start()
        return self.process

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure:
            self.process.kill()
        self.process.__exit__(failure, None, None)
        self.alarm.cancel()


def _restarted(node: Daemon) -> Daemon:
    """End it with SIGTERM and start it again with the same ports and data path."""
    assert node.stop() == 0
    addresses = f"--tcp-address={_address(node.tcp)}", f"--http-address={_address(node.http)}"
    return Daemon("nsqd", *node.flags, *addresses, data_path=node.data_path).start()


def _settled(node: Daemon, topic: str, *, clients: int) -> dict[str, Any]:
    """Return the channel's stats as soon as it owes nothing and has that many clients, else as they are at the end.

    FIN has no answer, so a driver cannot know when its last one has been taken.
    """
    stats: dict[str, Any] = {}

    def settled() -> bool:
        [found] = _get(node, "/stats", format="json", topic=topic, channel=CHANNEL)["topics"]
        stats.update(found["channels"][0])
        owed = stats["depth"] + stats["in_flight_count"] + stats["deferred_count"]
        return owed == 0 and len(stats["clients"]) == clients

    _poll(settled)
    return stats


def _known(lookupd: Daemon, topic: str) -> bool:
    return any(topic in producer["topics"] for producer in _get(lookupd, "/nodes")["producers"])


def _wait_until(condition: Callable[[], bool], complaint: str) -> None:
    if not _poll(condition):
        raise AssertionError(complaint)


def _poll(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + SETTLE_S
    while not (reached := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return reached


def _get(daemon: Daemon, path: str, **query: str) -> Any:
    with urllib.request.urlopen(_url(daemon, path, query), timeout=SETTLE_S) as answer:
        return json.load(answer)


def _post(daemon: Daemon, path: str, **query: str) -> None:
    with urllib.request.urlopen(_url(daemon, path, query), data=b"", timeout=SETTLE_S):
        pass


def _url(daemon: Daemon, path: str, query: dict[str, str]) -> str:
    return f"http://{_address(daemon.http)}{path}?{urllib.parse.urlencode(query)}"


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"{host}:{port}"
