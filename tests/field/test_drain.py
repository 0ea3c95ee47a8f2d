"""A rolling restart behind the documented nginx, seen by publishers that never try again."""

from pathlib import Path

import anyio
from anyio import to_thread

from tests.field.cluster import Cluster, again
from tests.field.nginx import Nginx
from tests.support.daemons import Daemon, host_port
from tests.support.load import Load, under_load
from tests.support.nodes import Api, eventually
from tests.support.wire import http

# nginx leaves a node out for fail_timeout after it was refused by it; the other one has to stay until that is over.
NGINX_FORGIVES_S = 2.5


async def restart(node: Daemon) -> None:
    """Drain a node over HTTP, and start it again once it has ended."""
    assert (await Api(node.http).post("/drain?timeout=20s")).status == 200
    assert await to_thread.run_sync(node.wait, 30) == 0, node.stderr
    assert "not drained" not in node.stderr
    await to_thread.run_sync(again, node)

    async def ready() -> bool:
        return (await http(node.http, "GET /readyz")).status == 200

    await eventually(ready)


async def test_publishers_behind_nginx_see_no_restart(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.create("t", "c")
        with Nginx(tmp_path / "nginx", cluster.node_addresses) as nginx:
            load = Load([host_port(nginx.address)], [node.tcp for node in cluster.nodes])
            async with under_load(load, tcp=False):
                for node in cluster.nodes:
                    await load.go_on(50)
                    await restart(node)
                    await anyio.sleep(NGINX_FORGIVES_S)
                cluster.await_registered()
            passed_on = [line for line in nginx.unusual() if "answers=503, 200" in line]
        assert load.errors == []
        assert set(load.tries) == {"200"}
        assert passed_on, nginx.unusual()[:10]
