"""The node that dies: one data path and one pair of ports for all of its lives."""

import json
import random
import shutil
import signal
import socket
from pathlib import Path
from time import monotonic_ns
from typing import Final, NamedTuple

from tests.support.daemons import Daemon
from tests.support.wire import http

# Below the ports that systems give to outgoing connections: while the node is down, nobody else gets its ports.
_PORTS: Final = range(15000, 32000)


class Owed(NamedTuple):
    """What a channel owes: messages that are due (waiting, on the topic too, or in flight), and deferred ones."""

    due: int
    deferred: int


class Node:
    """A daemon that is started again and again in ``folder``."""

    def __init__(self, folder: Path, flags: list[str]) -> None:
        self._folder = folder
        self._data_path = folder / "data"
        self._data_path.mkdir(parents=True)
        self.tcp = _free_address()
        self.http = _free_address()
        addresses = {"tcp": self.tcp, "http": self.http}
        own = [f"--{name}-address={host}:{port}" for name, (host, port) in addresses.items()]
        self._flags = [*own, "--msg-timeout=1s", *flags]
        self.daemon = self._next_daemon()

    def start(self) -> None:
        """Start it and wait until it listens. Raises AssertionError with its stderr if it does not."""
        self.daemon = self._next_daemon()
        self.daemon.start()

    def _next_daemon(self) -> Daemon:
        return Daemon("nsqd", *self._flags, data_path=self._data_path)

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the time just before."""
        now_ns = monotonic_ns()
        self.daemon.signal(number)
        return now_ns

    def keep(self, life: int) -> None:
        """Copy the data path of the dead node, for those who may have to find out what went wrong."""
        shutil.copytree(self._data_path, self._folder / f"after-life-{life}")

    def forget(self) -> None:
        """Remove the copies: nothing had gone wrong."""
        for copy in self._folder.glob("after-life-*"):
            shutil.rmtree(copy)

    async def post(self, target: str) -> None:
        """Make an administrative call."""
        answer = await http(self.http, f"POST {target}", headers={"Content-Length": "0"})
        assert answer.status == 200, f"{target}: {answer}"

    async def owed(self) -> dict[tuple[str, str], Owed]:
        """Return what each channel says it owes."""
        answer = await http(self.http, "GET /stats?format=json&include_clients=false")
        assert answer.status == 200, answer
        return {
            (topic["topic_name"], channel["channel_name"]): Owed(
                topic["depth"] + channel["depth"] + channel["in_flight_count"], channel["deferred_count"]
            )
            for topic in json.loads(answer.body)["topics"] or []
            for channel in topic["channels"]
        }


def _free_address() -> tuple[str, int]:
    while True:
        address = ("127.0.0.1", random.choice(_PORTS))
        with socket.socket() as probe:
            try:
                probe.bind(address)
            except OSError:
                continue
        return address
