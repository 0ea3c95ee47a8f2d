"""The command line that every bench script and run.py share."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby
from pathlib import Path

from load.broker import OWN_FLAGS, Address, Broker, Peer, build_peers, find_pid
from load.failed import Failed
from load.row import PEERS, Row
from load.table import Measured, machine, table

NAMES = [peer.name for peer in PEERS]
Open = Callable[[Row], AbstractContextManager[Broker]]


def main(*rows: Row) -> None:
    """Measures the rows, prints a table per section and set of columns, and exits with 1 if a broker that could be had
    failed a row."""
    arguments = _parser().parse_args()
    if arguments.at_most:
        rows = tuple(row.at_most(arguments.at_most) if row.at_most else row for row in rows)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the brokers started here are stopped
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # for the brokers too, which inherit it
    about: list[str] = []
    if arguments.address:
        broker = Broker(arguments.address, arguments.http_address, arguments.pid or find_pid(arguments.address))
        column = "{}:{}".format(*broker.tcp)
        brokers: dict[str, Open] = {column: lambda row: nullcontext(broker)}
        measured = [_measure(row, [column], brokers, arguments.rounds) for row in rows]
    else:
        build_peers()
        had, about = _peers(arguments.peers)
        about += _about_flags(rows)
        measured = []
        for row in rows:
            peers = [peer for peer in row.peers if peer.name in arguments.peers]
            brokers = {peer.column: partial(_start, peer) for peer in peers if peer.name in had}
            measured.append(_measure(row, [peer.column for peer in peers], brokers, arguments.rounds))
    command = " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    lines = [f"- Medians of {arguments.rounds} rounds, by `{command}`", f"- {machine()}", *about, ""]
    for (section, columns), group in groupby(measured, key=lambda one: (one.row.section, one.columns)):
        lines += [f"### {section}", ""] if section else []
        lines += [*table(columns, list(group)), ""]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.output:
        arguments.output.write_text(text)
    if any(one.missing for one in measured):
        sys.exit(1)


def _peers(names: Sequence[str]) -> tuple[set[str], list[str]]:
    """Names of the peers that can be had, and what is to be said about all of them."""
    had: set[str] = set()
    about = ["- Brokers in turn, each figure from a fresh process on an empty data path"]
    for peer in (peer for peer in PEERS if peer.name in names):
        try:
            about.append(f"- {peer.version()}: `{peer.shown} {' '.join(OWN_FLAGS)} --data-path=<empty folder>`")
        except Failed as error:
            about.append(f"- Column {peer.name} is missing: {error}")
        else:
            had.add(peer.name)
    return had, about


def _about_flags(rows: Sequence[Row]) -> Iterator[str]:
    """Which rows run with which flags."""
    questions: dict[str, list[str]] = {}
    for row in rows:
        for peer in row.peers:
            if flags := row.flags(peer):
                questions.setdefault(f"{peer.name} runs with `{' '.join(flags)}`", []).append(row.question)
    for what, asked in questions.items():
        yield f"- {what} for: {'; '.join(asked)}"


def _start(peer: Peer, row: Row) -> AbstractContextManager[Broker]:
    return peer.started(row.common_flags() + row.flags(peer))


def _measure(row: Row, columns: Sequence[str], brokers: Mapping[str, Open], rounds: int) -> Measured:
    measured = Measured(row, list(columns))
    failed: set[str] = set()
    for number in range(rounds):
        for name, opened in brokers.items():
            if name in failed:
                continue
            try:
                with opened(row) as broker:
                    figures = row.measure(broker)
            except (Failed, OSError) as error:
                failed.add(name)
                measured.missing.append(f"{name}: {error}")
            else:
                measured.rounds.setdefault(name, []).append(figures)
                shown = ", ".join(f"{value:,.4g} {figure}" for figure, value in figures.items())
                print(f"{row.question}, round {number + 1}, {name}: {shown}", file=sys.stderr)
    return measured


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measures NSQ brokers. Without --address it starts the real nsqd (bench/peers) and pynsqd in turn."
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each broker (default 3)")
    parser.add_argument("--peers", nargs="+", choices=NAMES, default=NAMES, help="which brokers to start")
    parser.add_argument("--address", type=_address, help="HOST:PORT (TCP) of a running broker to measure instead")
    parser.add_argument(
        "--http-address", type=_address, default=("127.0.0.1", 4151), help="its HTTP address (default 127.0.0.1:4151)"
    )
    parser.add_argument("--pid", type=int, help="its process, when it cannot be found by its port")
    parser.add_argument("--at-most", type=int, help="messages of the rows with millions of them, to try them out")
    parser.add_argument("--output", type=Path, help="file to write the table to, beside standard output")
    return parser


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)
