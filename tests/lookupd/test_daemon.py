"""lookupd/daemon: start, signals, end, as a process and within one (PROCESS 3, 4)."""

import signal
import socket
import urllib.request
from pathlib import Path

import anyio
import pytest
import structlog

from lookupd.daemon import running
from lookupd.options import Options
from pynsqd.wire.errors import StartupError
from tests.lookupd.conftest import Start
from tests.support.daemons import Daemon


def ping(daemon: Daemon) -> bytes:
    host, port = daemon.http
    with urllib.request.urlopen(f"http://{host}:{port}/ping", timeout=30) as response:
        return bytes(response.read())


def test_says_where_it_listens_and_ends_cleanly(tmp_path: Path) -> None:
    with Daemon("nsqlookupd", data_path=tmp_path) as daemon:
        host, port = daemon.tcp
        assert f"TCP: listening on {host}:{port}\n" in daemon.stderr
        assert "HTTP: listening on {}:{}\n".format(*daemon.http) in daemon.stderr
        assert daemon.stderr.count("listening on") == 2
        assert ping(daemon) == b"OK"
        with socket.create_connection(daemon.tcp) as client:
            client.sendall(b"  V1PING\n")
            assert client.recv(100) == b"\0\0\0\x02OK"
            assert daemon.stop() == 0
            assert client.recv(100) == b""


def test_hangup_does_not_end_it(tmp_path: Path) -> None:
    with Daemon("nsqlookupd", data_path=tmp_path) as daemon:
        daemon.signal(signal.SIGHUP)
        daemon.await_log("SIGHUP")
        assert ping(daemon) == b"OK"
        daemon.signal(signal.SIGINT)
        assert daemon.wait() == 0


def test_restart_on_the_same_ports_after_a_kill(tmp_path: Path) -> None:
    with Daemon("nsqlookupd", data_path=tmp_path) as daemon:
        addresses = dict(daemon.addresses)
        with socket.create_connection(daemon.tcp) as client:
            client.sendall(b"  V1PING\n")
            assert client.recv(100)
            daemon.kill()
    flags = [f"--{name.lower()}-address={address}" for name, address in addresses.items()]
    with Daemon("nsqlookupd", *flags, data_path=tmp_path) as daemon:
        assert daemon.addresses == addresses
        assert ping(daemon) == b"OK"


@pytest.mark.parametrize("which", ["tcp_address", "http_address"])
async def test_port_in_use_is_a_startup_error(start: Start, which: str) -> None:
    first = await start()
    taken = first.listeners.tcp.address
    options = {"tcp_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"} | {which: taken}
    with pytest.raises(StartupError, match=f"listen \\({taken}\\) failed - "):
        async with running(Options(**options), structlog.get_logger()):
            pass


async def test_end_closes_all_connections() -> None:
    options = Options(tcp_address="127.0.0.1:0", http_address="127.0.0.1:0")
    async with running(options, structlog.get_logger()) as listeners:
        v1 = await anyio.connect_tcp("127.0.0.1", listeners.tcp.port)
        http = await anyio.connect_tcp("127.0.0.1", listeners.http.port)
        await v1.send(b"  V1PING\n")
        assert await v1.receive() == b"\0\0\0\x02OK"
        await http.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await http.receive()).endswith(b"OK")
    for stream in (v1, http):
        with anyio.fail_after(30), pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.aclose()
