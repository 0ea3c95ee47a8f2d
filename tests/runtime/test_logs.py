"""What the log looks like, line by line, and who may change it."""

import json
import logging
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable

import pytest

from pynsqd.runtime.kinds import LogLevel
from pynsqd.runtime.logs import Logs

STAMP = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}"


class Captured:
    """Makes logs that write to a pipe, and reads it to the end."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def text(self, log_format: str, use: Callable[[Logs], None], level: LogLevel = LogLevel.INFO) -> str:
        with Logs("[nsqd] ", level, log_format, self.writer) as logs:
            use(logs)
        os.close(self.writer)
        with open(self.reader, encoding="utf-8") as file:
            return file.read()


@pytest.fixture
def captured() -> Captured:
    return Captured()


def test_a_plain_line_is_nsqds(captured: Captured) -> None:
    text = captured.text("auto", lambda logs: logs.logger.info("TCP: listening on 127.0.0.1:4150"))
    assert re.fullmatch(rf"\[nsqd\] {STAMP} INFO: TCP: listening on 127\.0\.0\.1:4150\n", text)


def test_fields_follow_the_text(captured: Captured) -> None:
    text = captured.text("auto", lambda logs: logs.logger.warning("client left", peer="a b", n=3, empty=""))
    assert text.endswith(" WARNING: client left peer='a b' n=3 empty=''\n")


def test_bound_fields_are_kept(captured: Captured) -> None:
    text = captured.text("auto", lambda logs: logs.logger.bind(topic="t").error("bad"))
    assert text.endswith(" ERROR: bad topic=t\n")


def test_a_line_stays_one_line_whatever_a_client_sends(captured: Captured) -> None:
    text = captured.text("auto", lambda logs: logs.logger.info("from\nme\x1b[2J", name="x\n[nsqd] FATAL"))
    assert text.endswith(" INFO: from\\nme\\x1b[2J name='x\\n[nsqd] FATAL'\n")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (LogLevel.DEBUG, ["DEBUG", "INFO", "WARNING", "ERROR", "FATAL"]),
        (LogLevel.WARN, ["WARNING", "ERROR", "FATAL"]),
        (LogLevel.FATAL, ["FATAL"]),
    ],
)
def test_the_level_holds_back_what_is_less(captured: Captured, level: LogLevel, expected: list[str]) -> None:
    def use(logs: Logs) -> None:
        log = logs.logger
        for method in (log.debug, log.info, log.warning, log.error, log.critical):
            method("x")

    assert re.findall(r" ([A-Z]+): x", captured.text("auto", use, level)) == expected


def test_the_level_changes_while_it_runs(captured: Captured) -> None:
    def use(logs: Logs) -> None:
        bound = logs.logger.bind(a=1)
        bound.debug("before")
        logs.level = LogLevel.DEBUG
        bound.debug("after")

    assert re.findall(r"DEBUG: (\w+)", captured.text("auto", use)) == ["after"]


def test_json_lines(captured: Captured) -> None:
    def use(logs: Logs) -> None:
        logs.logger.info("HTTP: listening on 127.0.0.1:4151", n=1, peer=b"x")
        try:
            raise KeyError("k")
        except KeyError:
            logs.logger.exception("bad")

    first, second = map(json.loads, captured.text("json", use).splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", first.pop("timestamp"))
    assert first == {"level": "INFO", "event": "HTTP: listening on 127.0.0.1:4151", "n": 1, "peer": "b'x'"}
    assert second["level"] == "ERROR"
    assert second["exception"].endswith("KeyError: 'k'")


def test_an_exception_follows_its_line(captured: Captured) -> None:
    def use(logs: Logs) -> None:
        try:
            raise KeyError("k")
        except KeyError:
            logs.logger.exception("bad", n=1)

    lines = captured.text("auto", use).splitlines()
    assert lines[0].endswith("ERROR: bad n=1")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "KeyError: 'k'"


def test_console_on_a_pipe_has_no_colours(captured: Captured) -> None:
    def use(logs: Logs) -> None:
        logs.logger.info("TCP: listening on 127.0.0.1:1", peer="a b")

    text = captured.text("console", use)
    assert re.fullmatch(rf"{STAMP} \[INFO   \] TCP: listening on 127\.0\.0\.1:1 peer='a b'\n", text)


@pytest.mark.parametrize(("no_color", "coloured"), [("", False), (None, True)])
def test_a_terminal_gets_the_console(monkeypatch: pytest.MonkeyPatch, no_color: str | None, coloured: bool) -> None:
    if no_color is None:
        monkeypatch.delenv("NO_COLOR", raising=False)
    else:
        monkeypatch.setenv("NO_COLOR", no_color)
    ours, theirs = os.openpty()
    with Logs("[nsqd] ", LogLevel.INFO, "auto", theirs) as logs:
        logs.logger.info("TCP: listening on 127.0.0.1:1")
    text = os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert "] TCP: listening on 127.0.0.1:1\r\n" in text  # no colour touches the address
    assert ("\x1b[32mINFO" in text) is coloured


def test_what_libraries_log_comes_too_and_only_while_open(captured: Captured) -> None:
    library = logging.getLogger("aiohttp.server")
    before = list(logging.getLogger().handlers)
    text = captured.text("auto", lambda logs: library.error("failed %s 100%%", "badly"))
    assert text.endswith(" ERROR: failed badly 100% logger=aiohttp.server\n")
    assert logging.getLogger().handlers == before


def test_two_logs_do_not_share_a_level() -> None:
    one, other = Captured(), Captured()

    def use(logs: Logs) -> None:
        assert other.text("auto", lambda second: second.logger.debug("hidden")) == ""
        logs.logger.debug("shown")

    assert "DEBUG: shown" in one.text("auto", use, LogLevel.DEBUG)


def test_lines_that_found_no_room_are_counted_in_the_log(captured: Captured) -> None:
    with Logs("[nsqd] ", LogLevel.INFO, "auto", captured.writer) as logs:
        for _ in range(500):
            logs.logger.info("x" * 1024)
        text = ""
        while "lines=" not in text:
            assert select.select([captured.reader], [], [], 10)[0], "nothing was said of the lost lines"
            text += os.read(captured.reader, 65536).decode()
    kept = text.count("INFO: xxx")
    assert kept < 500
    assert f" WARNING: log lines dropped while standard error was blocked lines={500 - kept}\n" in text
    os.close(captured.writer)
    os.close(captured.reader)


BLOCKED = """
import sys, time
from pynsqd.runtime.kinds import LogLevel
from pynsqd.runtime.logs import Logs
with Logs("[nsqd] ", LogLevel.INFO, "json") as logs:
    for n in range(20000):
        logs.logger.info("x" * 100)
print("done", flush=True)
"""


def test_a_process_whose_stderr_nobody_reads_runs_on_and_exits() -> None:
    process = subprocess.Popen([sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.wait(30) == 0  # stderr is a full pipe by now: 64 KiB of 2 MB
        assert process.stdout is not None
        assert process.stdout.read() == b"done\n"
    finally:
        process.kill()
        process.communicate()


CLOSED = """
import os, socket
from pynsqd.runtime.kinds import LogLevel
from pynsqd.runtime.logs import Logs
logs = Logs("[nsqd] ", LogLevel.INFO, "auto")
ours, theirs = socket.socketpair()
logs.logger.info("secret")
logs.close()
ours.setblocking(False); theirs.setblocking(False)
for end in (ours, theirs):
    try:
        assert not end.recv(100)
    except BlockingIOError:
        pass
print("clean")
"""


def test_a_process_without_stderr_logs_into_no_socket() -> None:
    command = f'exec {sys.executable} -c "$0" 2>&-'
    finished = subprocess.run(["sh", "-c", command, CLOSED], stdout=subprocess.PIPE, timeout=90, check=False)
    assert finished.stdout == b"clean\n"
