"""The real nsqd beside our node, under our lookupd and under the real one: nobody can tell who is who."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.field.cluster import Cluster, again
from tests.field.consumers import go_nsq, pynsq
from tests.field.program import wait_until
from tests.field.real import RealDaemon
from tests.field.web import get_json, post
from tests.support.daemons import Daemon

BODIES = [f"body {number}" for number in range(100)]


@pytest.fixture(scope="module", params=["our lookupd", "the real nsqlookupd", "one of each"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Our node and the real nsqd, in this order."""
    lookupds = {
        "our lookupd": [Daemon],
        "the real nsqlookupd": [RealDaemon],
        "one of each": [Daemon, RealDaemon],
    }[request.param]
    with Cluster(tmp_path_factory.mktemp("mixed"), lookupds=lookupds, nodes=[Daemon, RealDaemon]) as cluster:
        yield cluster


def publish(cluster: Cluster, topic: str) -> None:
    for node in cluster.node_addresses:
        for body in BODIES:
            post(f"http://{node}/pub", body.encode(), topic=topic)


def test_consumers_find_and_drain_both(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("t", "go", "py")
    with (
        go_nsq("t", "go", cluster.lookup_addresses, tmp_path) as go,
        pynsq("t", "py", cluster.lookup_addresses, tmp_path) as py,
    ):
        publish(cluster, "t")
        for consumer in (go, py):
            wait_until(lambda each=consumer: sorted(each.lines) == sorted(2 * BODIES), "every message of both nodes")


@pytest.mark.parametrize("first", [0, 1], ids=["ours first", "nsqd first"])
def test_new_topic_gets_the_channels_that_the_other_has(first: int, cluster: Cluster) -> None:
    """A channel that consumers have made on one node is there on the other before its first message is given out."""
    topic = f"known-{first}"
    has, new = cluster.node_addresses[first], cluster.node_addresses[1 - first]
    post(f"http://{has}/topic/create", topic=topic)
    post(f"http://{has}/channel/create", topic=topic, channel="known")
    for lookupd in cluster.lookup_addresses:
        url = f"http://{lookupd}/channels"
        wait_until(lambda url=url: get_json(url, topic=topic)["channels"] == ["known"], "lookupd knows the channel")
    post(f"http://{new}/pub", b"x", topic=topic)

    def depth_of_known() -> bool:
        [found] = get_json(f"http://{new}/stats", format="json", topic=topic)["topics"]
        return [(channel["channel_name"], channel["depth"]) for channel in found["channels"]] == [("known", 1)]

    wait_until(depth_of_known, "the message waits on the channel")


def test_lookup_names_both_alike(cluster: Cluster) -> None:
    cluster.create("alike", "c")
    for lookupd in cluster.lookup_addresses:
        ours, real = sorted(
            get_json(f"http://{lookupd}/lookup", topic="alike")["producers"],
            key=lambda producer: producer["http_port"] != cluster.nodes[0].http[1],
        )
        for node, producer in zip(cluster.nodes, (ours, real), strict=True):
            assert (producer["broadcast_address"], producer["tcp_port"]) == ("127.0.0.1", node.tcp[1])
        assert ours.keys() == real.keys()
        assert ours["version"] == real["version"]


def test_our_node_leaves_and_comes_back(cluster: Cluster) -> None:
    cluster.create("leaves", "c")
    ours = cluster.nodes[0]
    assert ours.stop() == 0
    for lookupd in cluster.lookup_addresses:
        left = get_json(f"http://{lookupd}/lookup", topic="leaves")
        assert [producer["tcp_port"] for producer in left["producers"]] == [cluster.nodes[1].tcp[1]]
        assert left["channels"] == ["c"]
    again(ours)
    cluster.await_registered()
    for lookupd in cluster.lookup_addresses:
        url = f"http://{lookupd}/lookup"
        wait_until(lambda url=url: len(get_json(url, topic="leaves")["producers"]) == 2, "it offers its topic again")
    ours.kill()
    for lookupd in cluster.lookup_addresses:
        url = f"http://{lookupd}/lookup"
        wait_until(lambda url=url: len(get_json(url, topic="leaves")["producers"]) == 1, "a killed one is noticed")
    again(ours)
    cluster.await_registered()
