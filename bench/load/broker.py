"""An NSQ broker under load: started here or found at an address; its CPU time, its memory, its HTTP calls."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

from load.failed import Failed

BENCH = Path(__file__).resolve().parents[1]
PEERS_BIN = BENCH / "peers" / "bin"
OWN_FLAGS = ("--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0")
START_LIMIT_S = 10.0
DEPTH_LIMIT_S = 30.0

Address = tuple[str, int]


@dataclass
class Broker:
    """A running broker. `pid` is None when it runs on another machine: then its CPU and memory read as NaN. `program`
    is None when somebody else started it: then its disk reads as NaN, and it cannot be started again."""

    tcp: Address
    http: Address
    pid: int | None
    program: Program | None = None

    def cpu_s(self) -> float:
        """CPU seconds, user and system, of all threads so far."""
        if self.pid is None:
            return float("nan")
        # Linux' clock id of another process' CPU time: the figures of /proc/<pid>/stat in ns instead of 10 ms ticks.
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss_bytes(self) -> float:
        """Resident memory now."""
        if self.pid is None:
            return float("nan")
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def disk_bytes(self) -> float:
        """Size of all files on its data path now."""
        if self.program is None:
            return float("nan")
        total = 0
        for path in self.program.data_path.rglob("*"):
            with suppress(FileNotFoundError):  # renamed or removed since it was listed
                total += path.stat().st_size if path.is_file() else 0
        return total

    def restart(self, how: signal.Signals) -> float:
        """Ends it with this signal and starts it again on the same data path, on new ports. Returns the moment, in
        seconds of the monotonic clock, at which the new process was begun. `Failed` if it was not started here."""
        if self.program is None:
            raise Failed("this broker was not started here, so it cannot be started again")
        self.program.end(how)
        began_s = time.monotonic()
        self.tcp, self.http = self.program.start()
        self.pid = self.program.pid
        return began_s

    def call(self, method: str, path: str, **query: str) -> bytes:
        """One HTTP call; anything but 200 is `Failed`."""
        connection = http.client.HTTPConnection(*self.http, timeout=DEPTH_LIMIT_S)
        try:
            connection.request(method, f"{path}?{urlencode(query)}")
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise Failed(f"{method} {path} answered {response.status} {body[:100]!r}")
        return body

    @contextmanager
    def topic(self, *channels: str) -> Iterator[str]:
        """A new topic with these channels, deleted at the end."""
        name = f"bench_{os.getpid()}_{next(_topic_numbers)}"
        self.call("POST", "/topic/create", topic=name)
        for channel in channels:
            self.call("POST", "/channel/create", topic=name, channel=channel)
        try:
            yield name
        finally:
            with suppress(OSError, Failed):  # a measurement's own failure is the one to be told
                self.call("POST", "/topic/delete", topic=name)

    def wait_for_ping(self, limit_s: float) -> None:
        """Returns when `/ping` answers 200; `Failed` when it does not within the limit."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                self.call("GET", "/ping")
                return
            except (OSError, Failed) as error:
                if time.monotonic() > deadline:
                    raise Failed(f"/ping did not answer 200 within {limit_s:.0f} s: {error}") from error
                time.sleep(0.002)

    def depth(self, topic: str, channel: str) -> int:
        """Messages that wait in this channel."""
        stats = json.loads(self.call("GET", "/stats", format="json", topic=topic, channel=channel))
        return int(stats["topics"][0]["channels"][0]["depth"])

    def wait_for_depth(self, topic: str, channel: str, depth: int) -> None:
        """Returns when that many messages wait in this channel."""
        deadline = time.monotonic() + DEPTH_LIMIT_S
        while (found := self.depth(topic, channel)) != depth:
            if time.monotonic() > deadline:
                raise Failed(f"the channel holds {found} messages, not {depth}")
            time.sleep(0.05)


_topic_numbers = itertools.count()


class Program:
    """A broker's process that was started here, and can be started again on the same data path."""

    def __init__(self, shown: str, command: Sequence[str], folder: Path) -> None:
        self.data_path = folder / "data"
        self.data_path.mkdir()
        self._shown = shown
        self._command = [*command, f"--data-path={self.data_path}"]
        self._stderr = folder / "stderr"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process' id, None before the start."""
        return self._process and self._process.pid

    def start(self) -> tuple[Address, Address]:
        """Starts it; returns where it listens for TCP and for HTTP."""
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(self._command, cwd=BENCH.parent, stdout=subprocess.DEVNULL, stderr=stderr)
        lines = _wait_for_addresses(self._shown, self._process, self._stderr)
        return _listening(lines, "TCP"), _listening(lines, "HTTP")

    def end(self, how: signal.Signals) -> None:
        """Sends the signal and returns when the process is gone."""
        if self._process:
            self._process.send_signal(how)
            self._process.wait()


@dataclass(frozen=True)
class Peer:
    """A broker program that the benches start themselves, one fresh process per measurement. `flags` are given to it
    always and stand in the head of its column."""

    name: str
    command: tuple[str, ...]
    shown: str
    flags: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """What stands above its figures."""
        return " ".join([self.name, *self.flags])

    def with_flags(self, *flags: str) -> Peer:
        """The same program as a column of its own."""
        return replace(self, flags=flags)

    def version(self) -> str:
        """What `--version` prints."""
        try:
            done = subprocess.run(
                [*self.command, "--version"],
                cwd=BENCH.parent,
                capture_output=True,
                text=True,
                timeout=START_LIMIT_S,
                check=False,
            )
        except FileNotFoundError as error:
            raise Failed(f"{self.shown} is not built (bench/peers/build.sh)") from error
        if done.returncode:
            raise Failed(f"{self.shown} --version: {_last_line(done.stderr)}")
        return done.stdout.strip()

    @contextmanager
    def started(self, flags: tuple[str, ...]) -> Iterator[Broker]:
        """The broker on free loopback ports and an empty data path; killed, and its data removed, at the end."""
        with tempfile.TemporaryDirectory(prefix="bench-nsq-") as folder:
            program = Program(self.shown, [*self.command, *OWN_FLAGS, *self.flags, *flags], Path(folder))
            try:
                tcp, http = program.start()
                yield Broker(tcp, http, program.pid, program)
            finally:
                program.end(signal.SIGKILL)


NSQD = Peer("nsqd", (str(PEERS_BIN / "nsqd"),), "nsqd")
PYNSQD = Peer("pynsqd", (sys.executable, "-m", "pynsqd"), "python -m pynsqd")


def build_peers() -> None:
    """Builds nsqd and its bench tools where they are missing; without Go it says so on stderr and goes on."""
    if not (PEERS_BIN / "nsqd").exists():
        subprocess.run([BENCH / "peers" / "build.sh"], check=False)


def find_pid(address: Address) -> int | None:
    """The local process that listens on this port, if it is one."""
    import psutil  # noqa: PLC0415 - only a broker that somebody else started is looked for, all else is stdlib

    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == address[1]:
            return connection.pid
    return None


def _wait_for_addresses(shown: str, process: subprocess.Popen[bytes], stderr: Path) -> str:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        lines = stderr.read_text()
        if "TCP: listening on" in lines and "HTTP: listening on" in lines and lines.endswith("\n"):
            return lines
        if process.poll() is not None:
            raise Failed(f"{shown} did not start: {_last_line(lines)}")
        time.sleep(0.002)
    raise Failed(f"{shown} was not listening within {START_LIMIT_S:.0f} s")


def _listening(lines: str, kind: str) -> Address:
    host, _, port = lines.partition(f"{kind}: listening on ")[2].split()[0].strip('",').rpartition(":")
    return host, int("".join(itertools.takewhile(str.isdigit, port)))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["(no output)"])[-1]
