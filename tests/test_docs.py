"""The documents hold what they say: their commands run, their links lead somewhere, nothing that exists is left out.

README.md and docs/quickstart.md are read as a reader follows them: each ``sh`` block is run by bash against one lookupd
and one node, and must print what the ``text`` block behind it shows, with ``…`` for whatever differs from run to run.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from unittest.mock import MagicMock
from urllib.request import urlopen

import pytest

import lookupd.metrics
import lookupd.options
import pynsqd.httpapi.metrics
import pynsqd.options
from lookupd.httpapi import HttpApi
from pynsqd.core.transitions import LEGAL
from pynsqd.httpapi.app import build_router
from pynsqd.runtime.flags import flags_of
from pynsqd.runtime.http import Router
from pynsqd.wire import errors
from tests.support.daemons import Daemon

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLLOWED: Final = ["README.md", "docs/quickstart.md"]
DEADLINE_S: Final = 60.0


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---- the commands


@dataclass(frozen=True)
class Block:
    """Commands of a page and what they print; ``line`` is where they stand."""

    line: int
    commands: str
    printed: str

    @property
    def endless(self) -> bool:
        """Whether it runs until Ctrl-C."""
        return "nsq.run()" in self.commands


_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page but those that call make."""
    text = text_of(page)
    for found in _BLOCK.finditer(text):
        if not found[1].startswith("make "):
            yield Block(text.count("\n", 0, found.start()) + 1, found[1], found[2] or "")


def pattern(printed: str) -> re.Pattern[str]:
    lines = [".*".join(map(re.escape, line.split("…"))) for line in printed.strip().splitlines()]
    return re.compile("[ ]*\n".join(lines))


class Here:
    """The daemons of one page; ``put`` puts their addresses, and this Python, in the place of the default ones."""

    def __init__(self, lookup: Daemon, node: Daemon) -> None:
        self._new = {
            ".venv/bin/python": sys.executable,
            "127.0.0.1:4150": _address(node.tcp),
            "127.0.0.1:4151": _address(node.http),
            "127.0.0.1:4161": _address(lookup.http),
            '"tcp_port":4150': f'"tcp_port":{node.tcp[1]}',
            '"http_port":4151': f'"http_port":{node.http[1]}',
        }
        self._stats = f"http://{_address(node.http)}/stats?format=json"

    @property
    def at_rest(self) -> bool:
        """Whether every message that was delivered is finished or given back."""
        with urlopen(self._stats, timeout=30) as answer:
            topics = json.load(answer)["topics"]
        return not any(channel["in_flight_count"] for topic in topics for channel in topic["channels"])

    def put(self, text: str) -> str:
        for old, new in self._new.items():
            text = text.replace(old, new)
        return text


def _address(host_port: tuple[str, int]) -> str:
    return f"{host_port[0]}:{host_port[1]}"


@contextmanager
def daemons(folder: Path) -> Iterator[Here]:
    with (
        Daemon("nsqlookupd", data_path=folder) as lookup,
        Daemon("nsqd", f"--lookupd-tcp-address={_address(lookup.tcp)}", data_path=folder) as node,
    ):
        node.await_log("connected to lookupd")
        yield Here(lookup, node)


class Shell:
    """Commands run by bash. ``printed`` grows as they print; standard error is kept to explain a failure."""

    def __init__(self, commands: str, stderr: Path) -> None:
        self.printed = ""
        self._stderr = stderr
        with stderr.open("w") as errors_to:
            self._process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", commands],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors_to,
                start_new_session=True,
                text=True,
            )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self.printed += line

    @property
    def explained(self) -> str:
        return self.printed + self._stderr.read_text()

    def run(self, done: Callable[[str], bool], *, endless: bool) -> None:
        """Wait for the end, or, if there is none, until ``done(printed)``; then end it."""
        until = time.monotonic() + DEADLINE_S
        try:
            while self._reader.is_alive() and time.monotonic() < until and not (endless and done(self.printed)):
                self._reader.join(0.02)
        finally:
            if self._reader.is_alive():
                os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join()
        assert self._process.wait() == 0 or endless, self.explained


@pytest.mark.parametrize("page", FOLLOWED)
def test_commands_print_what_the_page_says(page: str, tmp_path: Path) -> None:
    with daemons(tmp_path) as here:
        for block in blocks(page):
            expected = pattern(here.put(block.printed))

            def done(printed: str, expected: re.Pattern[str] = expected) -> bool:
                return bool(expected.fullmatch(printed.strip())) and here.at_rest

            shell = Shell(here.put(block.commands), tmp_path / "stderr")
            shell.run(done, endless=block.endless)
            assert expected.fullmatch(shell.printed.strip()), f"{page}:{block.line} prints\n{shell.explained}"


@pytest.mark.parametrize("page", FOLLOWED)
def test_make_commands_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    called = set(re.findall(r"^make (\S+)$", text_of(page), re.MULTILINE))
    assert called <= targets


# ---- links


_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return what a link into the page may name, as the usual renderers of Markdown do it."""
    headings = _HEADING.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    linked = set(_LINK.findall(text_of("docs/index.md")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


# ---- what exists is written down, and what is written down exists


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every ``METHOD /path`` that is routed from here on."""
    added: list[str] = []
    monkeypatch.setattr(Router, "add", lambda _self, method, path, _handler: added.append(f"{method} {path}"))
    return added


def documented(half: int) -> set[str]:
    """Return every ``METHOD /path`` of docs/http-api.md, of the node (0) or of lookupd (1)."""
    halves = text_of("docs/http-api.md").split("\n## lookupd\n")
    return set(re.findall(r"`((?:GET|POST|PUT) /[^\s`?]*)", halves[half]))


def test_every_endpoint_of_the_node_is_documented(routes: list[str]) -> None:
    build_router(MagicMock())
    assert documented(0) == set(routes)


def test_every_endpoint_of_lookupd_is_documented(routes: list[str]) -> None:
    HttpApi(MagicMock(), MagicMock()).router()
    assert documented(1) == set(routes)


def test_every_metric_is_documented() -> None:
    metrics = {metric.name for metric in (*pynsqd.httpapi.metrics.METRICS, *lookupd.metrics.METRICS)}
    named = set(re.findall(r"`((?:pynsqd|lookupd|process)_\w+)`", text_of("docs/http-api.md")))
    assert named == metrics


def test_every_command_and_error_is_documented() -> None:
    page = text_of("docs/protocol.md")
    codes = {value for name, value in vars(errors).items() if name.startswith("E_")}
    assert {word for word in codes if f"`{word}" not in page} == set()
    assert {name for name in map(bytes.decode, LEGAL) if f"`{name}" not in page} == set()


_FLAG: Final = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]+)")
# Flags of other programs and of the log tools, and the name that stands for any.
_FOREIGN: Final = {"data-binary", "help", "json", "name", "strict", "unix-socket"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_exist(page: Path) -> None:
    known = {flag.name for options in (pynsqd.options.Options, lookupd.options.Options) for flag in flags_of(options)}
    named = set(_FLAG.findall(page.read_text(encoding="utf-8")))
    assert named <= known | _FOREIGN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_machine(page: Path) -> None:
    assert not re.search(r"(?<!\w)/(?:work|root|home|tmp|Users)/", page.read_text(encoding="utf-8"))
