"""Signals, on a real process (PROCESS 4)."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pynsqd.runtime.lifecycle import run

DAEMON = """
import sys, os, signal
import anyio
from pynsqd.runtime.lifecycle import run, stop_signals

def say(text):
    print(text, flush=True)

async def serve(early):
    with stop_signals() as signals:
        if early:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            await anyio.lowlevel.checkpoint()
        say("ready")
        async def reload():
            say("reload")
        number = await signals.wait(reload)
        say(number.name)
        if not early:
            sys.stdin.readline()  # a second signal comes here
            await anyio.lowlevel.checkpoint()
        say("stopped")

run(serve, len(sys.argv) > 1)
"""


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", DAEMON, *getattr(request, "param", [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_and_a_second_one_does_not_cut_it_short(
    daemon: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert line(daemon) == "ready"
    daemon.send_signal(number)
    assert line(daemon) == number.name
    daemon.send_signal(signal.SIGTERM)
    assert daemon.stdin is not None
    daemon.stdin.write("\n")
    daemon.stdin.flush()
    assert line(daemon) == "stopped"
    assert daemon.wait(30) == 0


def test_every_hangup_reloads_and_kills_nothing(daemon: subprocess.Popen[str]) -> None:
    assert line(daemon) == "ready"
    for _ in range(3):
        daemon.send_signal(signal.SIGHUP)
        assert line(daemon) == "reload"
    daemon.send_signal(signal.SIGTERM)
    assert line(daemon) == "SIGTERM"


@pytest.mark.parametrize("daemon", [["early"]], indirect=True)
def test_signals_that_come_during_the_start_are_not_lost(daemon: subprocess.Popen[str]) -> None:
    assert [line(daemon) for _ in range(4)] == ["ready", "reload", "SIGTERM", "stopped"]
    assert daemon.wait(30) == 0


async def _loop_module(argument: int) -> tuple[str, int]:
    return type(asyncio.get_running_loop()).__module__, argument


def test_run_uses_uvloop_where_it_installs() -> None:
    pytest.importorskip("uvloop")
    assert run(_loop_module, 5) == ("uvloop", 5)


def test_run_does_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    module, _ = run(_loop_module, 5)
    assert module.startswith("asyncio")


def test_run_hands_failures_on() -> None:
    async def fail() -> None:
        raise OSError(os.getpid())

    with pytest.raises(OSError, match=str(os.getpid())):
        run(fail)
