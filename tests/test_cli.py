"""The two commands, as processes (PROCESS 1, 2) and as functions."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import lookupd.cli
import lookupd.options
import pynsqd.cli
import pynsqd.options
from tests.support.daemons import Daemon

# PROCESS 2, the harness's own expression.
VERSION = re.compile(r"[a-z]+ v\d+\.\d+\.\d+(-[a-z]+)? \(built w/[a-z0-9.-]+\)\n")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize("module", ["pynsqd", "lookupd"])
@pytest.mark.parametrize("flag", ["--version", "-version"])
def test_version_of_the_modules(module: str, flag: str) -> None:
    finished = run(sys.executable, "-m", module, flag)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert VERSION.fullmatch(finished.stdout)
    assert not finished.stdout.split()[1].startswith("v0")


@pytest.mark.parametrize(
    ("script", "name", "printed"),
    [
        ("from pynsqd.cli import main", "nsqd", "pynsqd v1.3.0 "),
        ("from lookupd.cli import main", "nsqlookupd", "pynsqlookupd v1.3.0 "),
    ],
)
def test_a_link_with_nsqs_name_works_the_same(tmp_path: Path, script: str, name: str, printed: str) -> None:
    real = tmp_path / "real"
    real.write_text(f"#!{sys.executable}\nimport sys\n{script}\nsys.exit(main())\n")
    real.chmod(0o755)
    link = tmp_path / name
    link.symlink_to(real)
    assert run(str(link), "--version").stdout.startswith(printed)
    assert run(str(link), "--help").stdout.startswith(f"Usage of {name}:\n")
    refused = run(str(link), "--nope")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"flag provided but not defined: -nope\nUsage of {name}:\n")


def test_a_start_that_fails_is_one_line() -> None:
    failed = run(sys.executable, "-m", "pynsqd", "--max-deflate-level=10")
    assert failed.returncode == 1
    stamp = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}"
    text = r"failed to instantiate nsqd - --max-deflate-level must be \[1,9\]"
    assert re.fullmatch(rf"\[nsqd\] {stamp} FATAL: {text}\n", failed.stderr)


def started(monkeypatch: pytest.MonkeyPatch, package: ModuleType, *arguments: str) -> Any:
    """Run the command with a daemon that only notes its options, and return them."""
    served: list[Any] = []

    async def serve(options: Any, ready: None = None) -> None:
        served.append(options)

    monkeypatch.setitem(sys.modules, f"{package.__name__}.daemon", SimpleNamespace(serve=serve))
    command: Any = __import__(f"{package.__name__}.cli", fromlist=["main"])
    assert command.main(list(arguments)) == 0
    (options,) = served
    return options


def test_the_node_knows_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    options = started(monkeypatch, pynsqd, "--tls-client-auth-policy=require", "--tls-cert=c")
    assert options.broadcast_address == os.uname().nodename
    assert options.id == pynsqd.cli.default_node_id(os.uname().nodename)
    assert options.tls_required is pynsqd.options.TlsRequired.YES
    assert options.given == {"tls-client-auth-policy", "tls-cert"}


def test_what_is_given_wins_over_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("id = 7\n")
    arguments = ["--broadcast-address=b", "--config", str(tmp_path / "c.toml")]
    options = started(monkeypatch, pynsqd, *arguments)
    assert (options.broadcast_address, options.id) == ("b", 7)


def test_the_lookupd_knows_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    options = started(monkeypatch, lookupd, "--tombstone-lifetime=1s")
    assert options == lookupd.options.Options(
        broadcast_address=os.uname().nodename,
        tombstone_lifetime_ns=1_000_000_000,
        given=frozenset(["tombstone-lifetime"]),
    )


@pytest.mark.parametrize("server", ["nsqd", "nsqlookupd"])
def test_a_key_that_nobody_knows_is_told(server: str, tmp_path: Path) -> None:
    """A misspelt ``http_api_key_file`` would leave the doors open."""
    (tmp_path / "c.toml").write_text('http_api_keyfile = "keys"\n[nsqd]\n')
    with Daemon(server, f"--config={tmp_path / 'c.toml'}", data_path=tmp_path) as daemon:
        daemon.await_log("options that change nothing: http_api_keyfile (unknown key), nsqd (unknown key)")


def test_the_default_node_id_is_nsqds() -> None:
    # Computed by Go: crc32.ChecksumIEEE(md5.Sum("host")) % 1024
    assert pynsqd.cli.default_node_id("localhost") == 16
    assert pynsqd.cli.default_node_id("broker-1.example.com") == 1017


@pytest.mark.parametrize("module", ["pynsqd.cli", "lookupd.cli"])
def test_refusing_and_printing_import_no_daemon(module: str) -> None:
    """What the first tenth of a second pays for is only what it needs (PROCESS 5)."""
    heavy = {"aiohttp", "anyio", "asyncio", "logging", "socket", "ssl", "structlog", "tomllib", "uvloop"}
    code = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    imported = set(run(sys.executable, "-c", code).stdout.split())
    assert module in imported
    assert not imported & {*heavy, "importlib.metadata"}
