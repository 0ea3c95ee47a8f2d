"""Peers that are slow, deaf, short-lived or gone, on a real node, beside two clients that must not notice.

Deadlines are sped up where an option or IDENTIFY sets them; those that nothing sets are held in the tests of their
modules (core/test_deadlines, httpapi/test_ingest, runtime/test_http_connection).
"""

import json
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from tests.fuzz.well_behaved import clients, descriptors, pair, rss_bytes
from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api, eventually
from tests.support.wire import command, mpub

_MIB = 1 << 20
_IDLE = 300  # slow connections at a time
_CHURN = 3000  # short ones
_DEAF = 4  # readers that do not read


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon("nsqd", "--msg-timeout=60s", data_path=tmp_path) as node:
        yield node
        assert "Traceback" not in node.stderr
        assert node.stop() == 0


@pytest.mark.parametrize(
    ("http", "begun", "drip"),
    [
        (False, b"", b""),
        (False, b"  V", b""),
        (False, b"  V2PUB sl", b"o"),
        (False, b"  V2PUB slow\n\0\0\1\0half", b"x"),
        (False, b"  V2MPUB slow\n\0\0\1\0\0\0\0\2\0\0\0\1x\0", b""),
        (True, b"", b""),
        (True, b"POST /pub?topic=slow HTTP/1.1\r\nHost: n\r\nX: ", b"x"),
        (True, b"POST /pub?topic=slow HTTP/1.1\r\nHost: n\r\nContent-Length: 100\r\n\r\nhalf", b"x"),
        (True, b"POST /pub?topic=slow HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", b""),
    ],
    ids=["silent", "magic", "line", "body", "batch", "http silent", "head", "http body", "chunk"],
)
async def test_hundreds_that_do_not_finish_what_they_say(http: bool, begun: bytes, drip: bytes, node: Daemon) -> None:
    """They cost little, nobody waits for them, and nothing of them is left when they go."""
    async with pair(node) as good:
        await Api(node.http).stats()  # so all of HTTP is loaded by now
        await good.exchange(5)
        before, memory = descriptors(node), rss_bytes(node)
        with ExitStack() as stack:
            slow = [_connect(stack, node.http if http else node.tcp, begun) for _ in range(_IDLE)]
            for _ in range(3):
                for one in slow:
                    one.send(drip)
                await good.exchange(10)
            assert rss_bytes(node) < memory + _IDLE * 100_000
        await eventually(lambda: descriptors(node) <= before + 2, "their sockets are closed")
        await good.settle()
        assert await clients(node) == 2
        topics = (await Api(node.http).stats())["topics"]
        assert all(topic["message_count"] == 0 for topic in topics if topic["topic_name"] == "slow")


def _connect(stack: ExitStack, address: tuple[str, int], begun: bytes) -> socket.socket:
    one = stack.enter_context(socket.create_connection(address))
    one.send(begun)
    return one


@pytest.mark.parametrize(
    "begun",
    [b"PUB sl", b"PUB slow\n\0\0\1\0half", b"MPUB slow\n\0\0\1\0\0\0\0\2\0\0\0\1x\0"],
    ids=["line", "body", "batch"],
)
async def test_one_byte_a_moment_does_not_put_off_the_end(begun: bytes, node: Daemon) -> None:
    """The deadline is two heartbeats, here of a second, after the last whole command (PROTOCOL 1.8)."""
    async with pair(node) as good, await V2.open(node.tcp) as slow:
        assert await slow.ask(command(b"IDENTIFY", b'{"heartbeat_interval":1000}')) == OK
        await slow.send(begun)
        with anyio.fail_after(30), pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await slow.send(b"o")
                await good.exchange(1)
                await anyio.sleep(0.05)
        await good.settle()


async def test_readers_that_never_read(node: Daemon) -> None:
    """With windows and a backlog far above what a connection may hold: closed after a heartbeat that cannot leave."""
    api = Api(node.http)
    body = b"x" * 40_000
    await api.do("/topic/create?topic=b", "/channel/create?topic=b&channel=c")
    async with pair(node) as good, await V2.open(node.tcp) as publisher:
        for _ in range(25):
            assert await publisher.ask(mpub(b"b", [body] * 100)) == OK
        memory = rss_bytes(node)
        with ExitStack() as stack:
            for _ in range(_DEAF):
                deaf = socket.socket()
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.connect(node.tcp)
                stack.enter_context(deaf)
                interval = json.dumps({"heartbeat_interval": 1000}).encode()
                deaf.sendall(b"  V2" + command(b"IDENTIFY", interval) + b"SUB b c\nRDY 2500\n")
            await eventually(lambda: _in_flight(api), "messages were written to them")
            most = 0
            while await clients(node) > 3:
                await good.exchange(5)
                most = max(most, rss_bytes(node))
            assert most < memory + _DEAF * 8 * _MIB  # of it 4 in the kernel, which are in flight
        shown = await api.channel("c", "b")
        assert (shown["depth"], shown["in_flight_count"], shown["client_count"]) == (2500, 0, 0)
        await good.settle()


async def _in_flight(api: Api) -> bool:
    return bool((await api.channel("c", "b"))["in_flight_count"])


async def test_a_publisher_that_never_reads_its_answers(node: Daemon) -> None:
    """It is not listened to any more, so what the node holds for it has an end; no heartbeat ends it first."""
    async with pair(node) as good:
        await good.exchange(1)
        memory = rss_bytes(node)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(node.tcp)
            deaf.sendall(b"  V2" + command(b"IDENTIFY", b'{"heartbeat_interval":60000}') + b"SUB deaf c\n")
            deaf.setblocking(False)
            fins = b"FIN 0123456789abcdef\n" * 3000  # each makes for an error of 60 bytes
            sent = refused = 0
            rest = b""
            while refused < 50:  # as many turns in a row without a byte read
                try:
                    rest = rest or fins
                    taken = deaf.send(rest)
                    rest = rest[taken:]
                    sent += taken
                    refused = 0
                except BlockingIOError:
                    refused += 1
                    await good.exchange(1)
                assert sent < 100 * _MIB
            assert rss_bytes(node) < memory + 50 * _MIB
            assert await clients(node) == 3
        await good.settle()


async def test_thousands_of_short_connections(node: Daemon) -> None:
    """Orderly ones, resets, in mid command and in mid body, over TCP and HTTP: nothing of them is left."""
    visits: list[tuple[bool, bytes]] = [
        (False, b""),
        (False, b"  V2"),
        (False, b"  V2NOP\nSUB churn c\nRDY 1\n"),
        (False, b"  V2" + command(b"PUB churn", b"x")),
        (False, b"  V2PUB churn\n\0\0\1\0half"),
        (False, b"garbage"),
        (True, b"GET /ping HTTP/1.1\r\nHost: n\r\n\r\n"),
        (True, b"POST /pub?topic=churn HTTP/1.1\r\nHost: n\r\nContent-Length: 100\r\n\r\nhalf"),
        (True, b"GET /stats HTTP/1.1\r\nHost: n\r\n\r\n"),
        (True, b"\x16\x03\x01"),
    ]
    async with pair(node) as good:
        await Api(node.http).stats()  # so all of HTTP is loaded by now
        await good.exchange(1)
        before, memory = descriptors(node), 0
        for number in range(_CHURN):
            http, sent = visits[number % len(visits)]
            with socket.create_connection(node.http if http else node.tcp) as visitor:
                if number % 3 == 0:
                    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                visitor.send(sent)
            if number % 50 == 0:
                await good.exchange(1)
            if number == _CHURN // 3:  # caches are full by now
                memory = rss_bytes(node)
        await eventually(lambda: _alone(node), "the two are alone")
        await eventually(lambda: descriptors(node) <= before + 8, "their sockets are closed")
        assert rss_bytes(node) < memory + 8 * _MIB
        await good.settle()


async def _alone(node: Daemon) -> bool:
    return await clients(node) == 2


def test_so_many_files_may_be_open() -> None:
    """The tests above need them."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 2 * _IDLE
