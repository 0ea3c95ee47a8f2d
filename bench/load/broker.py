"""An NSQ broker under load: started here or found at an address; its CPU time, its memory, its HTTP calls."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from load.failed import Failed

BENCH = Path(__file__).resolve().parents[1]
PEERS_BIN = BENCH / "peers" / "bin"
OWN_FLAGS = ("--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0")
START_LIMIT_S = 10.0
DEPTH_LIMIT_S = 30.0

Address = tuple[str, int]


@dataclass(frozen=True)
class Broker:
    """A running broker. `pid` is None when it runs on another machine: then its CPU and memory read as NaN."""

    tcp: Address
    http: Address
    pid: int | None

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


@dataclass(frozen=True)
class Peer:
    """A broker program that the benches start themselves, one fresh process per measurement."""

    name: str
    command: tuple[str, ...]
    shown: str

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
        with tempfile.TemporaryDirectory(prefix="bench-nsq-") as folder, Path(folder, "stderr").open("wb") as stderr:
            data_path = Path(folder, "data")
            data_path.mkdir()
            command = [*self.command, *OWN_FLAGS, f"--data-path={data_path}", *flags]
            process = subprocess.Popen(command, cwd=BENCH.parent, stdout=subprocess.DEVNULL, stderr=stderr)
            try:
                lines = _wait_for_addresses(self.shown, process, Path(folder, "stderr"))
                yield Broker(_listening(lines, "TCP"), _listening(lines, "HTTP"), process.pid)
            finally:
                process.kill()
                process.wait()


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
        time.sleep(0.01)
    raise Failed(f"{shown} was not listening within {START_LIMIT_S:.0f} s")


def _listening(lines: str, kind: str) -> Address:
    host, _, port = lines.partition(f"{kind}: listening on ")[2].split()[0].strip('",').rpartition(":")
    return host, int("".join(itertools.takewhile(str.isdigit, port)))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["(no output)"])[-1]
