"""The PHP part of docs/quickstart.md, done by one shell as a reader does it: its ``sh field`` blocks, in order.

Each has to print what the ``text`` block behind it shows, with ``…`` for what differs. Only addresses are replaced.
"""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.field.cluster import at
from tests.field.needs import need
from tests.field.nginx import DEPLOY
from tests.field.program import Program, free_port, wait_until
from tests.support.daemons import Daemon

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "quickstart.md"
_BLOCK: Final = re.compile(r"^```sh field\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_END: Final = "-- the end of a block --"


@dataclass(frozen=True)
class Block:
    """Commands and the lines that they print."""

    commands: str
    printed: list[str]

    @property
    def endless(self) -> bool:
        """Whether it runs until Ctrl-C."""
        return "nsq.run()" in self.commands

    def fits(self, lines: list[str]) -> bool:
        """Whether this is what it prints."""
        return len(lines) == len(self.printed) and all(
            re.fullmatch(".*".join(map(re.escape, expected.split("…"))), line)
            for expected, line in zip(self.printed, lines, strict=True)
        )


def blocks(page: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(page):
        # curl prints /ping without a newline
        yield Block(
            found[1].replace("/ping; do sleep 0.1; done", "/ping; do sleep 0.1; done; echo"),
            (found[2] or "").splitlines(),
        )


def here(folder: Path, addresses: dict[str, str]) -> Path:
    """Make a working directory as the reader's, with docs/deploy/ in it."""
    place = folder / "docs" / "deploy"
    shutil.copytree(DEPLOY, place)
    for path in place.iterdir():
        path.write_text(put(path.read_text(), addresses))
    return folder


def put(text: str, addresses: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, addresses)), lambda found: addresses[found[0]], text)


def interrupt(shell: Program) -> None:
    """Press Ctrl-C: end the reader in the foreground."""
    for child in psutil.Process(shell.process.pid).children():
        if child.cmdline()[:2] == [sys.executable, "-"]:
            child.send_signal(signal.SIGINT)


def run(shell: Program, block: Block) -> list[str]:
    """Run a block to its end; return what it has printed."""
    shell.write(block.commands)
    start = len(shell.lines)
    if block.endless:
        wait_until(lambda: block.fits(shell.lines[start:]) or _ended(shell), "the reader prints it all")
        interrupt(shell)
    shell.write(f"echo '{_END}'\n")
    wait_until(lambda: _END in shell.lines[start:] or _ended(shell), "the block ends")
    assert not _ended(shell), shell.stderr
    end = shell.lines.index(_END, start)
    return shell.lines[start:end]


def _ended(shell: Program) -> bool:
    return not shell.running


def test_php_part_does_what_it_says(tmp_path: Path) -> None:
    for program in ("php", "nginx", "curl"):
        need(program)
    data = tmp_path / "data"
    data.mkdir()
    with (
        Daemon("nsqlookupd", data_path=data) as lookupd,
        Daemon("nsqd", f"--lookupd-tcp-address={at(lookupd.tcp)}", data_path=data) as node,
    ):
        addresses = {
            ".venv/bin/pynsqd": f"{sys.executable} -m pynsqd",
            ".venv/bin/python": sys.executable,
            "127.0.0.1:4151": at(node.http),
            "127.0.0.1:4160": at(lookupd.tcp),
            "127.0.0.1:4161": at(lookupd.http),
            **{f":{port}": f":{free_port()}" for port in (4250, 4251, 8080)},
        }
        folder = here(tmp_path / "here", addresses)
        env = {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        with Program(["bash", "-euo", "pipefail", "-s"], tmp_path / "stderr", cwd=folder, env=env) as shell:
            for block in blocks(put(PAGE.read_text(), addresses)):
                printed = run(shell, block)
                assert block.fits(printed), (block.commands, printed, shell.stderr)
            assert shell.finish() == 0


def test_all_blocks_are_found() -> None:
    assert len(list(blocks(PAGE.read_text()))) == PAGE.read_text().count("```sh field") == 7
