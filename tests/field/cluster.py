"""Two nodes under two lookupds, each with ports that it keeps over a restart; and what their /stats say."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.field.program import wait_until
from tests.field.web import get_json, post
from tests.support.daemons import Daemon


def at(address: tuple[str, int]) -> str:
    """Write an address as host:port."""
    return f"{address[0]}:{address[1]}"


def again(daemon: Daemon) -> Daemon:
    """Start a daemon that has ended once more, where it was."""
    daemon.flags = (*daemon.flags, f"--tcp-address={at(daemon.tcp)}", f"--http-address={at(daemon.http)}")
    return daemon.start()


class Cluster:
    """Lookupds, two unless told otherwise, and two nodes that know all of them."""

    def __init__(
        self,
        folder: Path,
        *,
        lookupds: Sequence[type[Daemon]] = (Daemon, Daemon),
        nodes: Sequence[type[Daemon]] = (Daemon, Daemon),
    ) -> None:
        self._folder = folder
        self._kinds = lookupds, nodes
        self._running = ExitStack()
        self.lookupds: list[Daemon] = []
        self.nodes: list[Daemon] = []

    def __enter__(self) -> "Cluster":
        lookupds, nodes = self._kinds
        for kind in lookupds:
            self.lookupds.append(self._running.enter_context(kind("nsqlookupd", data_path=self._folder)))
        known = [f"--lookupd-tcp-address={at(lookupd.tcp)}" for lookupd in self.lookupds]
        for number, kind in enumerate(nodes, 1):
            folder = self._folder / f"node-{number}"
            folder.mkdir()
            node = kind("nsqd", *known, f"--node-id={number}", data_path=folder)
            self.nodes.append(self._running.enter_context(node))
        self.await_registered()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def node_addresses(self) -> list[str]:
        """The HTTP side of each node, host:port."""
        return [at(node.http) for node in self.nodes]

    @property
    def lookup_addresses(self) -> list[str]:
        """The HTTP side of each lookupd, host:port."""
        return [at(lookupd.http) for lookupd in self.lookupds]

    def await_registered(self) -> None:
        """Wait until every lookupd lists every node."""
        for lookupd in self.lookup_addresses:
            url = f"http://{lookupd}/nodes"
            wait_until(lambda url=url: len(get_json(url)["producers"]) == 2, "both nodes known")

    def create(self, topic: str, *channels: str) -> None:
        """Make a topic with channels on both nodes, and wait until all lookupds know both as its producers."""
        for node in self.node_addresses:
            post(f"http://{node}/topic/create", topic=topic)
            for channel in channels:
                post(f"http://{node}/channel/create", topic=topic, channel=channel)
        for lookupd in self.lookup_addresses:
            url = f"http://{lookupd}/lookup"
            wait_until(lambda url=url: len(get_json(url, topic=topic)["producers"]) == 2, "both offer the topic")

    def channel(self, node: Daemon, topic: str, channel: str) -> dict[str, Any]:
        """Return a channel of a node's /stats."""
        return channel_of(at(node.http), topic, channel)


def channel_of(node: str, topic: str, channel: str) -> dict[str, Any]:
    """Return a channel of /stats of the node at ``node`` (host:port of its HTTP side); LookupError if there is none."""
    topics = get_json(f"http://{node}/stats", format="json", topic=topic, channel=channel)["topics"] or []
    channels: list[dict[str, Any]] = [channel for topic in topics for channel in topic["channels"] or []]
    return channels[0]
