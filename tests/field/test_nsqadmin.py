"""nsqadmin over our nodes and lookupds says what it says over the real ones, page after page, action after action."""

import json
import re
import socket
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.field.cluster import Cluster, channel_of
from tests.field.needs import need_nsq
from tests.field.program import Program, wait_until
from tests.field.real import RealDaemon
from tests.field.web import call, post, status_of
from tests.support.daemons import Daemon

TOPIC, CHANNEL = "orders", "mail"
# What differs from run to run, or between any two machines.
VARIES: Final = {
    "start_time",
    "connect_ts",
    "connected",
    "remote_address",
    "remote_addresses",
    "out_of_date",
    "host",
    "hostname",
}
# What depends on which node answers first, whose channels nsqadmin uses to sum up all: by the key it stands under.
BY_CHANCE: Final = {"nodes": VARIES | {"channels"}, "channels": VARIES | {"nodes"}}


@dataclass
class Session:
    """nsqadmin at work, and what it has answered so far: what was asked, the status, the answer without what varies."""

    url: str
    cluster: Cluster
    seen: list[tuple[str, int, Any]] = field(default_factory=list)

    def ask(self, path: str, until: Callable[[Any], Any] = bool) -> None:
        """Get a page's API; ``until`` tells from the answer whether all that was done before has reached the nodes."""

        def asked() -> tuple[int, Any] | None:
            status, body = call("GET", self.url + path.format(*self.cluster.node_addresses))
            answer = json.loads(body)
            return (status, answer) if until(answer) else None

        status, answer = wait_until(asked, f"{path} as it should be")
        self.seen.append((path, status, self.plain(answer)))

    def do(self, method: str, path: str, **body: str) -> None:
        """Do what a button does."""
        url = self.url + path.format(*self.cluster.node_addresses)
        status, answer = call(method, url, json.dumps(body).encode())
        self.seen.append((f"{method} {path} {body}", status, self.plain(json.loads(answer))))

    def plain(self, answer: Any, dropped: Set[str] = VARIES) -> Any:
        """Take out what varies, name ports by what they are, and sort lists."""
        if isinstance(answer, dict):
            return {
                self.name(key): self.plain(value, BY_CHANCE.get(key, VARIES))
                for key, value in answer.items()
                if key not in dropped
            }
        if isinstance(answer, list):
            return sorted((self.plain(each, dropped) for each in answer), key=json.dumps)
        return self.name(answer) if isinstance(answer, (str, int)) and not isinstance(answer, bool) else answer

    def name(self, value: str | int) -> str | int:
        """Name the ports in a value."""
        for number, node in enumerate(self.cluster.nodes, 1):
            for kind, (_, port) in (("tcp", node.tcp), ("http", node.http)):
                if value == port:
                    return f"{kind} port of node {number}"
                if isinstance(value, str):
                    value = re.sub(rf":{port}\b", f":{kind} of node {number}", value)
        return value


def subscribe(node: Daemon) -> socket.socket:
    """Subscribe as a consumer that asks for nothing."""
    consumer = socket.create_connection(node.tcp, timeout=30)
    identity = json.dumps(
        {"client_id": "c", "hostname": "h", "user_agent": "test/1", "feature_negotiation": False}
    ).encode()
    consumer.sendall(b"  V2IDENTIFY\n" + len(identity).to_bytes(4, "big") + identity)
    consumer.sendall(f"SUB {TOPIC} {CHANNEL}\n".encode())
    return consumer


def play(cluster: Cluster, folder: Path) -> list[tuple[str, int, Any]]:
    """Go through all pages and all buttons of nsqadmin."""
    with ExitStack() as running:
        lookupds = [f"--lookupd-http-address={address}" for address in cluster.lookup_addresses]
        log = folder / "nsqadmin.stderr"
        admin = Program([need_nsq("nsqadmin"), "--http-address=127.0.0.1:0", *lookupds], log)
        running.enter_context(admin)
        address = wait_until(lambda: re.search(r"HTTP: listening on (\S+)", admin.stderr), "nsqadmin listens")[1]
        session = Session(f"http://{address}", cluster)

        session.ask("/api/topics")
        session.do("POST", "/api/topics", topic=TOPIC, channel=CHANNEL)  # on lookupd only: nobody has the topic
        session.ask("/api/topics")
        session.ask("/api/topics?inactive=true")
        for number, node in enumerate(cluster.node_addresses):
            for each in range(5 + number):
                post(f"http://{node}/pub", b"%d" % each, topic=TOPIC)
            wait_until(
                lambda node=node: channel_of(node, TOPIC, CHANNEL)["depth"] >= 5, "the channel came from lookupd"
            )
        cluster.create(TOPIC, CHANNEL, "other")
        running.enter_context(subscribe(cluster.nodes[1]))
        wait_until(lambda: channel_of(cluster.node_addresses[1], TOPIC, CHANNEL)["clients"], "the consumer is there")

        session.ask("/api/topics")
        session.ask("/api/topics?inactive=true")
        session.ask(f"/api/topics/{TOPIC}", lambda page: page["depth"] == 0)
        session.ask(f"/api/topics/{TOPIC}/{CHANNEL}", lambda page: page["depth"] == 11)
        session.ask("/api/nodes")
        session.ask("/api/nodes/{0}")
        session.ask("/api/nodes/{1}", lambda page: page["total_clients"] == 1)
        session.ask("/api/nodes/nowhere:4151")
        session.ask("/api/counter")

        for path in (f"/api/topics/{TOPIC}", f"/api/topics/{TOPIC}/{CHANNEL}"):
            session.do("POST", path, action="pause")
            session.ask(path, lambda page: page["paused"])
            session.do("POST", path, action="unpause")
            session.ask(path, lambda page: not page["paused"])
        session.do("POST", f"/api/topics/{TOPIC}/{CHANNEL}", action="empty")
        session.ask(f"/api/topics/{TOPIC}/{CHANNEL}", lambda page: page["depth"] == 0)
        session.do("POST", f"/api/topics/{TOPIC}", action="pause")
        post(f"http://{cluster.node_addresses[0]}/pub", b"waits on the topic", topic=TOPIC)
        session.ask(f"/api/topics/{TOPIC}", lambda page: page["depth"] == 1)
        session.do("POST", f"/api/topics/{TOPIC}", action="empty")
        session.ask(f"/api/topics/{TOPIC}", lambda page: page["depth"] == 0)
        session.do("POST", f"/api/topics/{TOPIC}", action="no such action")

        session.do("DELETE", "/api/nodes/{0}", topic=TOPIC)  # tombstone
        session.ask("/api/nodes", lambda page: not all(node["topics"] for node in page["nodes"]))
        session.ask(f"/api/topics/{TOPIC}", lambda page: len(page["nodes"]) == 1)
        session.do("DELETE", f"/api/topics/{TOPIC}/other")
        session.ask(f"/api/topics/{TOPIC}", lambda page: len(page["channels"]) == 1)
        session.do("DELETE", f"/api/topics/{TOPIC}")
        session.ask("/api/topics", lambda page: not page["topics"])
        session.ask(f"/api/topics/{TOPIC}")
        session.ask("/api/nodes/{1}", lambda page: not page["topics"])
        session.ask("/api/counter")
        for page in ("/", "/ping", "/topics", f"/topics/{TOPIC}", "/nodes", "/counter", "/lookup"):
            assert status_of(session.url + page) == 200
        return session.seen


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, int, Any]]]:
    folder = tmp_path_factory.mktemp("ours")
    with Cluster(folder) as cluster:
        yield play(cluster, folder)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, int, Any]]]:
    folder = tmp_path_factory.mktemp("real")
    with Cluster(folder, lookupds=[RealDaemon] * 2, nodes=[RealDaemon] * 2) as cluster:
        yield play(cluster, folder)


def test_every_answer_is_as_over_the_real_ones(ours: list[Any], real: list[Any]) -> None:
    for mine, theirs in zip(ours, real, strict=True):
        assert mine == theirs


def test_answers_are_whole(ours: list[tuple[str, int, Any]]) -> None:
    """A handful of figures by hand, so that two empty pages are not taken for two equal ones."""
    first = {path: answer for path, _, answer in reversed(ours)}
    topic, channel = first[f"/api/topics/{TOPIC}"], first[f"/api/topics/{TOPIC}/{CHANNEL}"]
    assert (topic["message_count"], len(topic["nodes"]), len(topic["channels"])) == (11, 2, 2)
    assert (channel["depth"], channel["client_count"], len(channel["clients"])) == (11, 1, 1)
    assert [node["http_port"] for node in first["/api/nodes"]["nodes"]] == [
        "http port of node 1",
        "http port of node 2",
    ]
    assert sum(each["message_count"] for each in first["/api/counter"]["stats"].values()) == 11
    failed = [(path, status, answer["message"]) for path, status, answer in ours if answer.get("message")]
    assert [(path, status) for path, status, _ in failed] == [
        ("/api/nodes/nowhere:4151", 404),
        (f"POST /api/topics/{TOPIC} {{'action': 'no such action'}}", 400),
        (f"/api/topics/{TOPIC}", 502),  # after its deletion
    ], failed
