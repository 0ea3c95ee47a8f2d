"""TCP and HTTP on Unix sockets, as real processes (PROCESS 10)."""

import json
import subprocess
from pathlib import Path

from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, eventually
from tests.support.wire import command, http


async def test_a_node_on_unix_sockets(tmp_path: Path) -> None:
    """Served as over TCP, shown as ``@``; the sockets of a killed node are replaced, those of a stopped one gone."""
    tcp, web = str(tmp_path / "tcp.sock"), str(tmp_path / "http.sock")
    node = Daemon("nsqd", f"--tcp-address={tcp}", f"--http-address={web}", data_path=tmp_path)
    with node:
        async with await V2.consumer(tcp, 1) as consumer, await V2.open(tcp) as publisher:
            assert await publisher.ask(command(b"PUB t", b"over tcp.sock")) == OK
            assert (await consumer.message()).body == b"over tcp.sock"
            stats = json.loads((await http(web, "GET /stats?format=json")).body)
            (client,) = stats["topics"][0]["channels"][0]["clients"]
            assert client["remote_address"] == "@"
            assert [one["remote_address"] for one in stats["producers"]] == ["@"]
            info = json.loads((await http(web, "GET /info")).body)
            assert (info["tcp_port"], info["http_port"]) == (-1, -1)
        node.kill()
        assert Path(tcp).is_socket()
        assert Path(web).is_socket()
        node.start()
        assert (await http(web, "POST /pub?topic=t", b"x", headers={"Content-Length": "1"})).status == 200
        other = Daemon("nsqd", f"--tcp-address={tcp}", data_path=tmp_path / "other")
        (tmp_path / "other").mkdir()
        refused = subprocess.run(other.command(), stderr=subprocess.PIPE, text=True, timeout=90, check=False)
        assert refused.returncode == 1
        assert "Address already in use" in refused.stderr
        await eventually(lambda: _pings(web))
        assert node.stop() == 0
    assert not Path(tcp).exists()
    assert not Path(web).exists()


async def _pings(address: str) -> bool:
    return (await http(address, "GET /ping")).status == 200
