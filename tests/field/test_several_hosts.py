"""Node, two lookupds, publisher, consumers on hosts of their own; cables are pulled for longer than any timeout."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.field.consumers import go_nsq_command, pynsq_command
from tests.field.network import HostDaemon, Network, network
from tests.field.program import Program, wait_until
from tests.support.daemons import Daemon

TOPIC: Final = "hosts"
HOSTS: Final = {
    "node": {"inner": "10.77.1.10", "outer": "10.77.2.10"},
    "lookup1": {"inner": "10.77.1.1", "outer": "10.77.2.1"},
    "lookup2": {"inner": "10.77.1.2", "outer": "10.77.2.2"},
    "publisher": {"outer": "10.77.2.20"},
    "consumer": {"outer": "10.77.2.30"},
}
LOOKUPDS: Final = ("lookup1", "lookup2")
CHANNELS: Final = ("go-nsq", "pynsq")
INACTIVE_S: Final = 17.0  # a node pings every 15 s
ANSWER_S: Final = 2.0  # what the connection between node and lookupd allows for connecting and for an answer
BACK_OFF_S: Final = 2.0
SLOW_S: Final = 30.0  # a busy machine
PYNSQ_S: Final = 60.0  # it tries a node once every 10 s


@dataclass
class Field:
    """All that runs, and what it can be asked from outside."""

    network: Network
    node: Daemon
    publisher: Program
    consumers: dict[str, Program]

    def offered(self, lookupd: str) -> list[tuple[str, int, int]]:
        """Return where a lookupd says that the topic is."""
        answer = json.loads(
            self.network.get("publisher", f"http://{HOSTS[lookupd]['outer']}:4161/lookup?topic={TOPIC}")
        )
        return [(each["broadcast_address"], each["tcp_port"], each["http_port"]) for each in answer["producers"]]

    def nodes(self, lookupd: str) -> list[Any]:
        """Return the nodes that a lookupd lists."""
        found: list[Any] = json.loads(self.network.get("publisher", f"http://{HOSTS[lookupd]['outer']}:4161/nodes"))[
            "producers"
        ]
        return found

    def clients(self) -> dict[str, list[str]]:
        """Return the hosts of the clients of each channel."""
        [topic] = json.loads(self.network.get("node", f"http://127.0.0.1:4151/stats?format=json&topic={TOPIC}"))[
            "topics"
        ]
        return {
            channel["channel_name"]: [client["remote_address"].partition(":")[0] for client in channel["clients"]]
            for channel in topic["channels"]
        }

    def await_together(self) -> None:
        """Wait until both consumers are on the node."""
        both = {channel: [HOSTS["consumer"]["outer"]] for channel in CHANNELS}
        wait_until(lambda: self.clients() == both, "the consumers are there, once each", PYNSQ_S)

    def await_more(self, count: int = 50) -> None:
        """Wait until so many more messages are accepted and have come to both consumers."""
        wanted = len(self.publisher.lines) + count
        wait_until(lambda: len(self.publisher.lines) >= wanted, "publishing goes on")
        for consumer in self.consumers.values():
            wait_until(
                lambda each=consumer: set(each.lines) >= set(self.publisher.lines[:wanted]), "all comes", PYNSQ_S
            )


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("hosts")
    with ExitStack() as running:
        hosts = running.enter_context(network(HOSTS))
        for host in LOOKUPDS:
            flags = f"--broadcast-address={HOSTS[host]['inner']}", f"--inactive-producer-timeout={INACTIVE_S:.0f}s"
            running.enter_context(HostDaemon(hosts, host, "nsqlookupd", *flags, data_path=folder))
        flags = f"--broadcast-address={HOSTS['node']['outer']}", "--msg-timeout=2s"
        known = [f"--lookupd-tcp-address={HOSTS[host]['inner']}:4160" for host in LOOKUPDS]
        node = running.enter_context(HostDaemon(hosts, "node", "nsqd", *flags, *known, data_path=folder))
        hosts.get("node", f"http://127.0.0.1:4151/topic/create?topic={TOPIC}", "--request", "POST")
        for channel in CHANNELS:
            url = f"http://127.0.0.1:4151/channel/create?topic={TOPIC}&channel={channel}"
            hosts.get("node", url, "--request", "POST")
        script = [
            sys.executable,
            Path(__file__).with_name("http_publisher.py"),
            f"{HOSTS['node']['outer']}:4151",
            TOPIC,
        ]
        publisher = running.enter_context(Program(hosts.on("publisher", *script), folder / "publisher.stderr"))
        lookupds = [f"{HOSTS[host]['outer']}:4161" for host in LOOKUPDS]
        commands = zip(CHANNELS, (go_nsq_command, pynsq_command), strict=True)
        consumers = {
            channel: running.enter_context(
                Program(hosts.on("consumer", *command(TOPIC, channel, lookupds)), folder / f"{channel}.stderr")
            )
            for channel, command in commands
        }
        field = Field(hosts, node, publisher, consumers)
        field.await_together()
        yield field


def test_lookupd_tells_the_address_that_consumers_reach(field: Field) -> None:
    for lookupd in LOOKUPDS:
        assert field.offered(lookupd) == [(HOSTS["node"]["outer"], 4150, 4151)]
        [node] = field.nodes(lookupd)
        assert node["remote_address"].startswith(HOSTS["node"]["inner"] + ":")
    field.await_more()


def test_node_without_lookupds_and_a_consumer_without_the_node(field: Field) -> None:
    """Both for longer than every timeout; publishing goes on, and everything comes when the cables are in again."""
    field.await_more()
    field.network.connect("node", "inner", connected=False)
    field.network.connect("consumer", "outer", connected=False)
    cut_s = time.monotonic()
    wait_until(lambda: not any(field.clients().values()), "the consumers miss their heartbeats", 5 + SLOW_S)
    before = len(field.publisher.lines)

    for lookupd in LOOKUPDS:
        left_s = INACTIVE_S + SLOW_S - (time.monotonic() - cut_s)
        wait_until(
            lambda each=lookupd: field.offered(each) == field.nodes(each) == [], "the node is not offered", left_s
        )
    print(f"\nnot offered any more {time.monotonic() - cut_s:.1f} s after the cut")
    wait_until(
        lambda: field.node.stderr.count("no connection to lookupd") >= len(LOOKUPDS), "the node misses its lookupds"
    )
    assert len(field.publisher.lines) > before

    field.network.connect("node", "inner", connected=True)
    field.network.connect("consumer", "outer", connected=True)
    healed_s = time.monotonic()
    for lookupd in LOOKUPDS:
        left_s = ANSWER_S + BACK_OFF_S + SLOW_S - (time.monotonic() - healed_s)
        wait_until(
            lambda each=lookupd: len(field.offered(each)) == len(field.nodes(each)) == 1, "it is back, once", left_s
        )
    print(f"offered again {time.monotonic() - healed_s:.1f} s after the cable was in")
    field.await_together()
    print(f"all together again after {time.monotonic() - healed_s:.1f} s")
    field.await_more()


def test_node_without_publisher_and_consumers(field: Field) -> None:
    field.await_more()
    field.network.connect("node", "outer", connected=False)
    wait_until(lambda: not any(field.clients().values()), "the consumers miss their heartbeats", 5 + SLOW_S)
    for lookupd in LOOKUPDS:
        assert len(field.offered(lookupd)) == 1  # lookupd knows no better
    field.network.connect("node", "outer", connected=True)
    field.await_together()
    field.await_more()
    assert all(consumer.running for consumer in field.consumers.values())
