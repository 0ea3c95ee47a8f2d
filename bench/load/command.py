"""The command line that every bench script and run.py share."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from load.broker import NSQD, OWN_FLAGS, PYNSQD, Address, Broker, Peer, build_peers, find_pid
from load.failed import Failed
from load.row import Row
from load.table import Measured, machine, table

PEERS = {peer.name: peer for peer in (NSQD, PYNSQD)}
Open = Callable[[Row], AbstractContextManager[Broker]]


def main(*rows: Row) -> None:
    """Measures the rows, prints the table, and exits with 1 if a broker that could be had failed a row."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the brokers started here are stopped
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # for the brokers too, which inherit it
    brokers: dict[str, Open]
    about: list[str] = []
    if arguments.address:
        broker = Broker(arguments.address, arguments.http_address, arguments.pid or find_pid(arguments.address))
        columns = ["{}:{}".format(*broker.tcp)]
        brokers = {columns[0]: lambda row: nullcontext(broker)}
    else:
        build_peers()
        columns = [name for name in PEERS if name in arguments.peers]
        brokers, about = _peers(columns)
        about += [f"- {row.question}: nsqd runs with `{' '.join(row.nsqd_flags)}`" for row in rows if row.nsqd_flags]
    measured = [_measure(row, brokers, arguments.rounds) for row in rows]
    command = " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    lines = [f"- Medians of {arguments.rounds} rounds, by `{command}`", f"- {machine()}", *about, ""]
    lines += table(columns, measured)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.output:
        arguments.output.write_text(text)
    if any(one.missing for one in measured):
        sys.exit(1)


def _peers(names: Sequence[str]) -> tuple[dict[str, Open], list[str]]:
    """How each peer that can be had is started, and what is to be said about all of them."""
    brokers: dict[str, Open] = {}
    about = ["- Brokers in turn, each figure from a fresh process on an empty data path"]
    for peer in (PEERS[name] for name in names):
        try:
            about.append(f"- {peer.version()}: `{peer.shown} {' '.join(OWN_FLAGS)} --data-path=<empty folder>`")
        except Failed as error:
            about.append(f"- Column {peer.name} is missing: {error}")
        else:
            brokers[peer.name] = partial(_start, peer)
    return brokers, about


def _start(peer: Peer, row: Row) -> AbstractContextManager[Broker]:
    return peer.started(row.nsqd_flags if peer is NSQD else ())


def _measure(row: Row, brokers: Mapping[str, Open], rounds: int) -> Measured:
    measured = Measured(row)
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
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="which brokers to start")
    parser.add_argument("--address", type=_address, help="HOST:PORT (TCP) of a running broker to measure instead")
    parser.add_argument(
        "--http-address", type=_address, default=("127.0.0.1", 4151), help="its HTTP address (default 127.0.0.1:4151)"
    )
    parser.add_argument("--pid", type=int, help="its process, when it cannot be found by its port")
    parser.add_argument("--output", type=Path, help="file to write the table to, beside standard output")
    return parser


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)
