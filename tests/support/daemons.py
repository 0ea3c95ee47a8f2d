"""The daemons as real processes on port 0, found by the ``listening on`` lines they log (PROCESS 3).

``NSQD_BINARY`` and ``NSQLOOKUPD_BINARY`` name other programs to run in their place, such as the real nsqd: the tests
that only look at the wire can then be held against it.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

START_S: Final = 30.0
STOP_S: Final = 30.0
_LISTENING: Final = re.compile(r"\b(TCP|HTTPS?): listening on ([^\s\"']+)")
_PROGRAMS: Final = {"nsqd": ("NSQD_BINARY", "pynsqd"), "nsqlookupd": ("NSQLOOKUPD_BINARY", "lookupd")}


def is_reference() -> bool:
    """Tell whether another broker than ours is under test."""
    return any(variable in os.environ for variable, _ in _PROGRAMS.values())


class Daemon:
    """One process of ``server`` ("nsqd" or "nsqlookupd"). Starting waits for its addresses.

    An address given in ``flags`` is taken as it is; TCP and HTTP otherwise get 127.0.0.1 and port 0, and nsqd a data
    path. ``stderr`` is read all the time, so the process never blocks on it. It does not outlive the tests, however
    those end: a shell that waits for the end of a pipe from here then kills it.
    """

    def __init__(self, server: str, *flags: str, data_path: Path) -> None:
        self.server = server
        self.flags = flags
        self.data_path = data_path
        self.addresses: dict[str, str] = {}
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def tcp(self) -> tuple[str, int]:
        """Host and port of the TCP listener."""
        return host_port(self.addresses["TCP"])

    @property
    def http(self) -> tuple[str, int]:
        """Host and port of the HTTP listener."""
        return host_port(self.addresses["HTTP"])

    @property
    def pid(self) -> int:
        """The process id while it runs and afterwards."""
        assert self._process is not None
        return self._process.pid

    @property
    def stderr(self) -> str:
        """Everything it has logged so far."""
        with self._changed:
            return "".join(self._lines)

    def command(self) -> list[str]:
        """Return the program and its flags as they will be run."""
        variable, module = _PROGRAMS[self.server]
        binary = os.environ.get(variable)
        words = [binary] if binary else [sys.executable, "-m", module]
        words += [flag for flag in self._defaults() if not self._has(flag.partition("=")[0])]
        return words + list(self.flags)

    def _defaults(self) -> Iterator[str]:
        yield from ("--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--broadcast-address=127.0.0.1")
        if self.server == "nsqd":
            yield "--node-id=1"
            yield f"--data-path={self.data_path}"

    def _has(self, name: str) -> bool:
        return any(flag.lstrip("-").partition("=")[0] == name.lstrip("-") for flag in self.flags)

    def start(self) -> "Daemon":
        """Start it, or start it again; returns when it listens, or raises AssertionError with its stderr."""
        assert not self.running, "it is running"
        self.addresses.clear()
        self._process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",  # a log may show what a client has sent
        )
        guard = ["sh", "-c", 'read -r _; kill -9 "$0"', str(self.pid)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        expected = {"TCP"} | ({"HTTP"} if "--http-address=" not in self.flags else set())
        expected |= {"HTTPS"} if self._has("https-address") else set()
        self._await(lambda: expected <= self.addresses.keys(), START_S, "did not listen")
        return self

    def await_log(self, text: str, timeout_s: float = START_S) -> None:
        """Wait until ``text`` stands in its log."""
        self._await(lambda: text in "".join(self._lines), timeout_s, f"did not log {text!r}")

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Wait for its end and return the exit code; -9 stands for SIGKILL."""
        assert self._process is not None
        assert self._reader is not None
        assert self._guard is not None
        code = self._process.wait(timeout_s)
        self._guard.kill()
        self._guard.communicate()
        self._reader.join(timeout_s)
        return code

    def stop(self) -> int:
        """End it with SIGTERM and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it with SIGKILL; does nothing if it has ended or was never started."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def __enter__(self) -> "Daemon":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _await(self, condition: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        assert self._process is not None
        until = time.monotonic() + timeout_s
        with self._changed:
            while not condition() and self._process.poll() is None and time.monotonic() < until:
                self._changed.wait(0.1)
            if condition():
                return
        self.kill()
        raise AssertionError(f"{self.server} {complaint}:\n{self.stderr}")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                found = _LISTENING.search(line)
                with self._changed:
                    self._lines.append(line)
                    if found:
                        self.addresses[found[1]] = found[2]
                    self._changed.notify_all()


def host_port(address: str) -> tuple[str, int]:
    """Split ``127.0.0.1:4150`` or ``[::1]:4150``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
