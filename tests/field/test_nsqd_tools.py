"""nsqd's own tools against our nodes and lookupd: messages go from one to the next as operators chain them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.field.cluster import Cluster, at, channel_of
from tests.field.consumers import go_nsq
from tests.field.needs import need_nsq
from tests.field.program import Program, wait_until
from tests.field.web import Quiet, post, serving

LINES = [f"line {number}" for number in range(500)]
OFTEN = "--consumer-opt=lookupd_poll_interval,1s"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def tool(cluster: Cluster, folder: Path, name: str, *flags: str) -> Program:
    """Return a tool that finds its topic by both lookupds."""
    lookupds = [f"--lookupd-http-address={address}" for address in cluster.lookup_addresses]
    return Program([need_nsq(name), *lookupds, *flags], folder / f"{name}.stderr")


def publish_lines(cluster: Cluster, folder: Path, topic: str) -> None:
    """Let to_nsq publish LINES to both nodes."""
    nodes = [f"--nsqd-tcp-address={at(node.tcp)}" for node in cluster.nodes]
    with Program([need_nsq("to_nsq"), f"--topic={topic}", *nodes], folder / "to_nsq.stderr") as to_nsq:
        to_nsq.write("\n".join(LINES) + "\n")
        assert to_nsq.finish() == 0, to_nsq.stderr


def is_done(cluster: Cluster, topic: str, channel: str) -> bool:
    """Whether both nodes have every message of the channel finished."""
    stats = [channel_of(node, topic, channel) for node in cluster.node_addresses]
    owed = sum(each["depth"] + each["in_flight_count"] + each["deferred_count"] for each in stats)
    return owed == 0 and sum(each["message_count"] for each in stats) >= len(LINES)


def test_to_nsq_publishes_to_each_node_and_nsq_tail_prints(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("tail", "c")
    with go_nsq("tail", "c", cluster.lookup_addresses, tmp_path) as tail:
        publish_lines(cluster, tmp_path, "tail")
        wait_until(lambda: sorted(tail.lines) == sorted(2 * LINES), "every line from both nodes")
        wait_until(lambda: is_done(cluster, "tail", "c"), "all is finished")


def test_nsq_to_file_writes_all_before_it_finishes_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("archive", "to-file")
    publish_lines(cluster, tmp_path, "archive")
    output = tmp_path / "archive"
    flags = ["--topic=archive", "--channel=to-file", f"--output-dir={output}", "--sync-interval=200ms", OFTEN]
    with tool(cluster, tmp_path, "nsq_to_file", *flags) as to_file:
        wait_until(lambda: is_done(cluster, "archive", "to-file"), "all is finished")
        written = [line for path in output.iterdir() for line in path.read_text().splitlines()]
        assert sorted(written) == sorted(2 * LINES)  # FIN comes after the fsync
        to_file.process.terminate()
        assert to_file.finish() == 0
    assert not any(channel_of(node, "archive", "to-file")["clients"] for node in cluster.node_addresses)


def test_nsq_to_nsq_copies_from_node_to_node(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("source", "copy")
    cluster.create("target", "c")
    publish_lines(cluster, tmp_path, "source")
    flags = ["--topic=source", "--channel=copy", "--destination-topic=target", "--max-in-flight=100", OFTEN]
    flags += [f"--destination-nsqd-tcp-address={at(cluster.nodes[1].tcp)}"]
    with (
        go_nsq("target", "c", cluster.lookup_addresses, tmp_path) as tail,
        tool(cluster, tmp_path, "nsq_to_nsq", *flags),
    ):
        wait_until(lambda: sorted(tail.lines) == sorted(2 * LINES), "every line is copied")
        wait_until(lambda: is_done(cluster, "source", "copy"), "all is finished")
    assert channel_of(cluster.node_addresses[0], "target", "c")["message_count"] == 0


@contextmanager
def web_hook() -> Iterator[tuple[str, list[str]]]:
    """Run a server that refuses each tenth POST once; give its URL and what it has taken."""
    taken: list[str] = []
    refused: set[str] = set()

    class Hook(Quiet):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            refuse = body.endswith("0") and body not in refused
            (refused.add if refuse else taken.append)(body)
            self.send_response(503 if refuse else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Hook) as url:
        yield f"{url}/hook", taken


def test_nsq_to_http_posts_and_what_was_refused_comes_again(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("hooks", "to-http")
    for line in LINES[:50]:
        post(f"http://{cluster.node_addresses[0]}/pub", line.encode(), topic="hooks")
    with ExitStack() as running:
        url, taken = running.enter_context(web_hook())
        flags = ["--topic=hooks", "--channel=to-http", f"--post={url}", OFTEN]
        # without go-nsq's back-off, in which it may go on asking the node that has nothing
        flags += ["--consumer-opt=max_backoff_duration,0ms", "--consumer-opt=default_requeue_delay,10ms"]
        running.enter_context(tool(cluster, tmp_path, "nsq_to_http", *flags))
        wait_until(lambda: set(taken) == set(LINES[:50]), "every line is posted")
        stats = lambda: channel_of(cluster.node_addresses[0], "hooks", "to-http")  # noqa: E731
        wait_until(lambda: stats()["depth"] + stats()["in_flight_count"] + stats()["deferred_count"] == 0, "finished")
        assert stats()["requeue_count"] >= 5


def test_nsq_stat_sums_up_both_nodes(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create("stat", "c")
    publish_lines(cluster, tmp_path, "stat")
    with tool(cluster, tmp_path, "nsq_stat", "--topic=stat", "--channel=c", "--count=2", "--interval=100ms") as stat:
        assert stat.finish() == 0, stat.stderr
    # rates in and out; depth: all, in memory, on disk, in flight, deferred; requeued, timed out, messages, clients
    row = [int(word) for word in stat.lines[-1].replace("|", " ").split()]
    assert row == [0, 0, 1000, 1000, 0, 0, 0, 0, 0, 1000, 0]
