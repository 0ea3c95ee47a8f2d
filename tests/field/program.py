"""A process whose lines are kept, and waiting for what is to happen."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

DEADLINE_S: Final = 60.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return what ``condition`` gives as soon as that is true; fail after the deadline.

    What it looks at may not be there yet, or not answer: LookupError and OSError are a no.
    """
    until = time.monotonic() + deadline_s
    while True:
        try:
            last = condition()
        except (OSError, LookupError) as error:
            last = error
        if last and not isinstance(last, Exception):
            return last
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline_s} s: {what}: {last!r}")
        time.sleep(0.02)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, for programs that have to be told one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Program:
    """A command from ``with`` to its end, with its descendants; its lines as they come, its stderr in a file."""

    def __init__(
        self,
        command: Sequence[str | Path],
        stderr: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.lines: list[str] = []
        self.at_ns: list[int] = []  # when each line came, monotonic
        self._command = [str(word) for word in command]
        self._stderr = stderr
        self._cwd = cwd
        self._env = {**os.environ, **(env or {})}

    def __enter__(self) -> "Program":
        with self._stderr.open("a") as stderr:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="backslashreplace",
                start_new_session=True,
            )
        assert self.process.stdout is not None
        # a shell that waits for the end of a pipe from here: the program does not outlive the tests, however they end
        guard = ["sh", "-c", 'read -r _; kill -9 -"$0"', str(self.process.pid)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.finish()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self.at_ns.append(time.monotonic_ns())
            self.lines.append(line.rstrip("\n"))

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def stderr(self) -> str:
        """What it has written to its standard error."""
        return self._stderr.read_text(errors="replace")

    def write(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def finish(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for its end, with its input closed and its output read; return the exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        code = self.process.wait(timeout_s)
        self._guard.communicate()
        self._reader.join(timeout_s)
        self.process.stdout.close()
        return code
