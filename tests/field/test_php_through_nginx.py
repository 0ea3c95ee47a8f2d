"""PHP publishes through nginx to two nodes, 20 at once, a connection per request: what docs/failover.md describes."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.field.cluster import Cluster
from tests.field.needs import need
from tests.field.nginx import DEPLOY, Nginx
from tests.field.php_site import PhpSite, Visitors
from tests.field.program import Program, wait_until
from tests.field.web import call, get_json

HERE = Path(__file__).parent
PUBLISHERS = 20
EACH = 60
# Without keep-alive nginx opens a connection to a node for every publish, as PHP does to nginx.
NO_KEEP_ALIVE = {
    "keepalive 32;": "",
    "proxy_http_version 1.1;": "",
    'proxy_set_header Connection "";': "proxy_set_header Connection close;",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def nginx(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx") / "run", cluster.node_addresses) as nginx:
        yield nginx


def php_cli(folder: Path, url: str, topic: str) -> list[str]:
    """Let 20 php-cli publishers run to their end at once; return the bodies that were accepted."""
    with ExitStack() as running:
        publishers = [
            running.enter_context(
                Program(
                    [need("php"), HERE / "publish.php", DEPLOY / "publish.php", url, topic, f"cli-{i}", str(EACH), "0"],
                    folder / "publishers.stderr",
                )
            )
            for i in range(PUBLISHERS)
        ]
        assert {publisher.finish(60) for publisher in publishers} == {0}
        lines = [line for publisher in publishers for line in publisher.lines]
    assert [line for line in lines if not line.startswith("accepted ")] == []
    return [line.removeprefix("accepted ") for line in lines]


def published(cluster: Cluster, topic: str) -> list[int]:
    """Return how many messages each node has taken."""
    stats = [get_json(f"http://{node}/stats", format="json", topic=topic) for node in cluster.node_addresses]
    return [sum(found["message_count"] for found in each["topics"] or []) for each in stats]


def say(what: str, count: int, start_s: float) -> None:
    print(f"\n{what}: {count} publishes, {count / (time.monotonic() - start_s):.0f}/s")


def check_php_cli(cluster: Cluster, folder: Path, url: str, topic: str) -> None:
    """Every publish is accepted, and none is there twice: nothing was sent again."""
    start_s = time.monotonic()
    accepted = php_cli(folder, url, topic)
    say(f"php-cli, {topic}", len(accepted), start_s)
    assert len(set(accepted)) == sum(published(cluster, topic)) == PUBLISHERS * EACH


def test_php_cli_publishes_through_nginx_to_both_nodes(cluster: Cluster, nginx: Nginx, tmp_path: Path) -> None:
    check_php_cli(cluster, tmp_path, f"http://{nginx.address}", "nginx-keeps-connections")
    assert nginx.unusual() == []
    shares = published(cluster, "nginx-keeps-connections")
    assert min(shares) > PUBLISHERS * EACH / 3, shares


def test_php_cli_publishes_with_a_connection_to_a_node_each(cluster: Cluster, tmp_path: Path) -> None:
    with Nginx(tmp_path / "nginx", cluster.node_addresses, NO_KEEP_ALIVE) as nginx:
        check_php_cli(cluster, tmp_path, f"http://{nginx.address}", "nginx-keeps-no-connection")
        assert nginx.unusual() == []


def test_php_cli_publishes_without_nginx(cluster: Cluster, tmp_path: Path) -> None:
    node = psutil.Process(cluster.nodes[0].pid)
    before = node.num_fds()
    check_php_cli(cluster, tmp_path, f"http://{cluster.node_addresses[0]}", "no-nginx")
    few = 5  # the log of the topic, a question to lookupd
    wait_until(lambda: node.num_fds() <= before + few, "no connection is left behind")


def test_php_fpm_publishes(cluster: Cluster, nginx: Nginx, tmp_path: Path) -> None:
    with PhpSite(tmp_path / "site", f"http://{nginx.address}") as site:
        start_s = time.monotonic()
        visitors = Visitors(site, "php-fpm", count=EACH).start()
        visitors.finish()
        say("php-fpm, nginx-keeps-connections", len(visitors.accepted), start_s)
        assert visitors.failed == [], site.complaints
    assert len(visitors.accepted) == sum(published(cluster, "php-fpm")) == PUBLISHERS * EACH


def test_nginx_lets_through_publishes_and_ping_only(cluster: Cluster, nginx: Nginx) -> None:
    url = f"http://{nginx.address}"
    assert call("GET", f"{url}/ping") == (200, b"OK")
    assert call("POST", f"{url}/mpub", b"a\nb", topic="lines") == (200, b"OK")
    assert sum(published(cluster, "lines")) == 2
    for path in ("/stats", "/topic/delete?topic=lines", "/pub/", "/debug/pprof/", "/config/log_level"):
        assert call("POST", url + path, b"x")[0] == 404, path


def test_nginx_lets_through_what_a_node_takes_and_no_more(cluster: Cluster, nginx: Nginx) -> None:
    mib = 1024 * 1024
    for path, most in (("/pub", mib), ("/mpub", 5 * mib)):
        body = (b"x" * 1023 + b"\n") * (most // 1024)
        assert call("POST", f"http://{nginx.address}{path}", body, topic="big") == (200, b"OK")
        assert call("POST", f"http://{nginx.address}{path}", body + b"x", topic="big")[0] == 413


def test_what_is_refused_is_not_asked_of_the_other_node(cluster: Cluster, nginx: Nginx) -> None:
    assert call("POST", f"http://{nginx.address}/pub", b"x", topic="no name")[0] == 400
    assert call("POST", f"http://{nginx.address}/pub", b"", topic="empty")[0] == 400
    # topic= is as it came, and two nodes would stand there with a comma between them
    line = re.compile(r" 400 /pub topic=(no\+name|empty) nodes=[^ ,]+ answers=400 ")
    wait_until(lambda: sum(bool(line.search(each)) for each in nginx.unusual()) == 2, "both are in the log")
