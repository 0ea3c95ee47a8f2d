"""Nodes, lookupds, nginx fail under load: what PHP was told is accepted is consumed, by consumers that just go on."""

import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.field.cluster import Cluster, again, at, channel_of
from tests.field.consumers import go_nsq, pynsq
from tests.field.needs import need
from tests.field.nginx import DEPLOY, Nginx
from tests.field.php_site import PhpSite, Visitors
from tests.field.program import Program, wait_until
from tests.field.web import call, get_json, post
from tests.support.daemons import Daemon

HERE: Final = Path(__file__).parent
CLI, FPM = 10, 10
PAUSE_S: Final = 0.02  # between two publishes of one publisher: the figures are not to be of a machine that is full
SETTLE_S: Final = 90.0  # pynsq tries a node once every 10 s
TOPIC: Final = "failover"


class Load:
    """php-cli and php-fpm publishers with the documented snippet, through the documented nginx, until ``stop``."""

    def __init__(self, folder: Path, url: str) -> None:
        self._site = PhpSite(folder / "site", url)
        self._visitors = Visitors(self._site, TOPIC, visitors=FPM, pause_s=PAUSE_S)
        script = [need("php"), HERE / "publish.php", DEPLOY / "publish.php", url, TOPIC]
        stderr = folder / "publishers.stderr"
        self._cli = [Program([*script, f"cli-{i}", "0", str(int(PAUSE_S * 1e6))], stderr) for i in range(CLI)]
        self._running = ExitStack()

    def __enter__(self) -> "Load":
        self._running.enter_context(self._site)
        for program in self._cli:
            self._running.enter_context(program)
        self._visitors.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._visitors.stop()
        self._running.close()

    def stop(self) -> None:
        """Let each publisher finish what it is at."""
        self._visitors.stop()
        assert {program.finish() for program in self._cli} == {0}

    def accepted(self) -> list[str]:
        """Return the bodies that PHP was told are accepted."""
        lines = [line.split() for program in self._cli for line in list(program.lines)]
        return [body for word, body, *_ in lines if word == "accepted"] + list(self._visitors.accepted)

    def failed(self) -> list[str]:
        """Return what failed although it was tried again."""
        lines = [line for program in self._cli for line in list(program.lines) if not line.startswith("accepted ")]
        return lines + list(self._visitors.failed)

    def longest_wait_s(self) -> float:
        """Return the longest time that a php-cli publisher took for a message, with its pause."""
        return max(later - earlier for program in self._cli for earlier, later in pairwise(program.at_ns)) / 1e9

    def await_more(self, count: int = 300) -> None:
        """Wait until so many more are accepted."""
        enough = len(self.accepted()) + count
        wait_until(lambda: len(self.accepted()) >= enough, "publishing goes on")


@contextmanager
def consumers(cluster: Cluster, folder: Path) -> Iterator[dict[str, Program]]:
    """Run a go-nsq and a pynsq consumer, each on a channel of its own; they are connected to both nodes."""
    cluster.create(TOPIC, "go-nsq", "pynsq")
    with (
        go_nsq(TOPIC, "go-nsq", cluster.lookup_addresses, folder) as first,
        pynsq(TOPIC, "pynsq", cluster.lookup_addresses, folder) as second,
    ):
        for node in cluster.nodes:
            await_consumers(node)
        yield {"go-nsq": first, "pynsq": second}


def await_consumers(node: Daemon, channels: Sequence[str] = ("go-nsq", "pynsq")) -> None:
    def connected() -> bool:
        return all(channel_of(at(node.http), TOPIC, channel)["clients"] for channel in channels)

    wait_until(connected, "the consumers are connected", SETTLE_S)


def sent_again(nginx: Nginx) -> list[str]:
    """Return the publishes that nginx passed on to a second node after the first may have taken them."""
    return [line for line in nginx.unusual() if re.search(r"answers=50[24], ", line)]


def test_nothing_accepted_is_lost(tmp_path: Path) -> None:
    figures: dict[str, object] = {}
    with (
        Cluster(tmp_path) as cluster,
        consumers(cluster, tmp_path) as running,
        Nginx(tmp_path / "nginx", cluster.node_addresses) as nginx,
        Load(tmp_path, f"http://{nginx.address}") as load,
    ):
        load.await_more()

        node = cluster.nodes[0]
        # it is killed with messages that wait on one channel, and others in flight on the other
        post(f"http://{at(node.http)}/channel/pause", topic=TOPIC, channel="pynsq")
        load.await_more()
        node.kill()
        load.await_more()
        start_s = time.monotonic()
        again(node)
        figures["node: from its start until it listens, s"] = time.monotonic() - start_s
        await_published(node)
        figures["... until nginx uses it again, s"] = time.monotonic() - start_s
        await_consumers(node, ["go-nsq"])
        figures["... until go-nsq is back, s"] = time.monotonic() - start_s
        post(f"http://{at(node.http)}/channel/unpause", topic=TOPIC, channel="pynsq")

        lookupd = cluster.lookupds[0]
        lookupd.kill()
        load.await_more()
        again_s = time.monotonic()
        again(lookupd)
        cluster.await_registered()
        figures["lookupd: from its start until it knows both nodes, s"] = time.monotonic() - again_s

        nginx.reload()
        load.await_more()

        other = cluster.nodes[1]
        assert other.stop() == 0
        load.await_more()
        again(other)
        await_published(other)

        await_consumers(node)
        figures["node: from its start until pynsq is back too, s"] = time.monotonic() - start_s
        load.stop()
        accepted = load.accepted()
        for consumer in running.values():
            wait_until(lambda each=consumer: set(each.lines) >= set(accepted), "all that was accepted comes", SETTLE_S)
            assert consumer.running
        figures |= {
            "accepted": len(accepted),
            "failed in spite of the retry": len(load.failed()),
            "not taken by the first node asked": len(nginx.unusual()),
            "of them sent on when a node may have had them": len(sent_again(nginx)),
            "longest publish, with the pause before it, s": load.longest_wait_s(),
            **{f"more than once on {name}": more_than_once(each.lines) for name, each in running.items()},
        }
    print(
        "",
        *(
            f"{what}: {value:.3g}" if isinstance(value, float) else f"{what}: {value}"
            for what, value in figures.items()
        ),
        sep="\n",
    )
    assert load.failed() == []


def more_than_once(lines: Sequence[str]) -> int:
    return sum(count > 1 for count in Counter(lines).values())


def await_published(node: Daemon) -> None:
    wait_until(lambda: messages(node), "nginx uses the node again")


@contextmanager
def nobody_writes(node: Daemon) -> Iterator[None]:
    """Let the node's writes to files fail, as on a bad disk."""
    before = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, before)


def test_a_node_that_refuses_is_passed_over_and_used_again(tmp_path: Path) -> None:
    """503 means that nothing was published, so nothing comes twice."""
    with Cluster(tmp_path) as cluster, Nginx(tmp_path / "nginx", cluster.node_addresses) as nginx:
        url = f"http://{nginx.address}"
        cluster.create(TOPIC)
        with Load(tmp_path, url) as load:
            with nobody_writes(cluster.nodes[0]):
                wait_until(lambda: any("answers=503, 200 " in line for line in nginx.unusual()), "one is passed over")
                load.await_more()
                assert call("GET", f"{url}/ping") == (200, b"OK")
            taken = messages(cluster.nodes[0])
            wait_until(lambda: messages(cluster.nodes[0]) > taken, "it is used again")
            load.stop()
            assert load.failed() == []
            assert len(load.accepted()) == sum(messages(node) for node in cluster.nodes)


def test_a_node_that_hangs_holds_up_a_publish_as_long_as_nginx_waits(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path) as cluster,
        Nginx(
            tmp_path / "nginx", cluster.node_addresses, {"proxy_read_timeout 5s;": "proxy_read_timeout 1s;"}
        ) as nginx,
        Load(tmp_path, f"http://{nginx.address}") as load,
    ):
        load.await_more()
        cluster.nodes[0].signal(signal.SIGSTOP)
        wait_until(lambda: any("answers=504, 200 " in line for line in nginx.unusual()), "one is passed over")
        load.await_more()
        cluster.nodes[0].signal(signal.SIGCONT)
        load.await_more()
        load.stop()
        assert load.failed() == []
        assert sum(messages(node) for node in cluster.nodes) >= len(load.accepted())
        published_twice = sum(messages(node) for node in cluster.nodes) - len(load.accepted())
        assert published_twice <= len(sent_again(nginx))


def messages(node: Daemon) -> int:
    topics = get_json(f"http://{at(node.http)}/stats", format="json", topic=TOPIC)["topics"]
    return sum(topic["message_count"] for topic in topics or [])
