"""lookupd/connection: the V1 socket, and what a hostile client can do to it."""

import asyncio
import json
import socket
import struct

import anyio
import pytest

from lookupd.connection import Connection, _format_peer
from lookupd.session import Session
from tests.support.lookupds import HOST, Lookupd, running_lookupd
from tests.support.wire import WireClient, command

_READ = 1 << 18  # the most that either loop reads at once


async def until_no_nodes(lookupd: Lookupd) -> None:
    with anyio.fail_after(30):
        while (await lookupd.get("/nodes"))["producers"]:
            await anyio.sleep(0.005)


async def test_identify_answers_with_the_real_ports(lookupd: Lookupd) -> None:
    client = await lookupd.connect()
    body = {"version": "1.3.0", "tcp_port": 1, "http_port": 2, "broadcast_address": "a"}
    await client.send(command(b"IDENTIFY", json.dumps(body).encode()))
    answer = json.loads(await client.response())
    assert list(answer) == ["broadcast_address", "hostname", "http_port", "tcp_port", "version"]
    assert answer["broadcast_address"] == "127.0.0.1"
    assert (answer["tcp_port"], answer["http_port"]) == (lookupd.listeners.tcp.port, lookupd.listeners.http.port)
    assert answer["version"] == "1.3.0"
    assert answer["hostname"]


async def test_producer_is_known_by_its_own_address(lookupd: Lookupd) -> None:
    client = await lookupd.node(remote_address="spoof")
    host, port = client._stream.extra_attributes[anyio.abc.SocketAttribute.local_address]()  # type: ignore[index]
    (node,) = (await lookupd.get("/nodes"))["producers"]
    assert node["remote_address"] == f"{host}:{port}"


async def test_bad_magic_is_answered_and_closed(lookupd: Lookupd) -> None:
    client = await lookupd.connect(b"  V2")
    assert await client.response() == b"E_BAD_PROTOCOL"
    await client.expect_closed()


async def test_error_is_answered_and_closed(lookupd: Lookupd) -> None:
    client = await lookupd.node()
    await client.send(b"REGISTER $\nPING\n")
    assert await client.response() == b"E_BAD_TOPIC REGISTER topic name '$' is not valid"
    await client.expect_closed()
    await until_no_nodes(lookupd)
    refused = [entry for entry in lookupd.log.entries if entry["event"] == "client refused"]
    assert [entry["reason"] for entry in refused] == ["E_BAD_TOPIC REGISTER topic name '$' is not valid"]


@pytest.mark.parametrize("size", [-1, -(2**31), 2**31 - 1])
async def test_impossible_size_disturbs_nobody(lookupd: Lookupd, size: int) -> None:
    bystander = await lookupd.node()
    hostile = await lookupd.connect()
    await hostile.send(b"IDENTIFY\n" + struct.pack(">i", size))
    assert (await hostile.response()).startswith(b"E_BAD_BODY IDENTIFY ")
    await hostile.expect_closed()
    await lookupd.say(bystander, b"PING")


async def test_half_closed_client_gets_its_answers(lookupd: Lookupd) -> None:
    client = await lookupd.connect()
    await client.send(b"PING\nIDENTIFY\n\0\0")
    await client.shutdown_write()
    assert await client.response() == b"OK"
    assert await client.response() == b"E_BAD_BODY IDENTIFY failed to read body size"
    await client.expect_closed()


async def test_a_thousand_commands_in_one_write(lookupd: Lookupd) -> None:
    client = await lookupd.node()
    await lookupd.say(client, *(b"REGISTER t%d c" % number for number in range(1000)))
    assert len((await lookupd.get("/topics"))["topics"]) == 1000


async def test_disconnect_takes_the_producer_and_leaves_the_topic(lookupd: Lookupd) -> None:
    client = await lookupd.node()
    await lookupd.say(client, b"REGISTER t c")
    await client.close()
    await until_no_nodes(lookupd)
    assert await lookupd.get("/lookup?topic=t") == {"channels": ["c"], "producers": []}
    assert await lookupd.get("/debug") == {}
    events = [entry["event"] for entry in lookupd.log.entries]
    assert events[-2:] == ["producer identified", "producer left"]


async def send_until_stuck(client: WireClient, data: bytes) -> None:
    """Send ``data`` over and over until it is not taken for a second; 60 MB would be far more than sockets hold."""
    for _ in range(60_000_000 // len(data)):
        with anyio.move_on_after(1) as stuck:
            await client._stream.send(data)
        if stuck.cancelled_caught:
            return
    raise AssertionError("everything is taken although nothing is read")


async def test_client_that_does_not_read_is_not_read_from(lookupd: Lookupd) -> None:
    """Its answers must not pile up."""
    client = await lookupd.node()
    await send_until_stuck(client, b"PING\n" * 20000)
    assert len((await lookupd.get("/nodes"))["producers"]) == 1


async def test_client_that_goes_on_not_reading_is_dropped(lookupd: Lookupd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookupd.connection._STALL_TIMEOUT_S", 0.2)
    client = await lookupd.node()
    with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(30):
        while True:
            await client._stream.send(b"PING\n" * 20000)
    await until_no_nodes(lookupd)


async def test_client_that_does_not_read_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookupd.connection._CLOSE_TIMEOUT_S", 0.1)
    async with running_lookupd() as lookupd:
        client = await lookupd.node()
        lookupd.clients.clear()  # it stays open
        await send_until_stuck(client, b"PING\n" * 20000)
    with anyio.fail_after(30):
        while lookupd.log.entries[-1]["event"] != "producer left":
            await anyio.sleep(0.005)
    await client.close()


async def test_slow_reader_gets_every_answer(lookupd: Lookupd, monkeypatch: pytest.MonkeyPatch) -> None:
    paused = anyio.Event()
    pause_writing = Connection.pause_writing

    def note(connection: Connection) -> None:
        pause_writing(connection)
        paused.set()

    monkeypatch.setattr(Connection, "pause_writing", note)
    client = await lookupd.connect()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while not paused.is_set():
            await client._stream.send(b"PING\n" * 1000)
            sent += 1000

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await paused.wait()
            received = len(await client._stream.receive())
        while received < sent * 6:
            received += len(await client._stream.receive())
    await lookupd.say(client, b"PING")


async def test_silent_client_is_dropped(lookupd: Lookupd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookupd.connection._MAGIC_TIMEOUT_S", 1.0)
    greeted = await lookupd.connect()
    await lookupd.say(greeted, b"PING")
    silent = await lookupd.connect(b"  V")
    await silent.expect_closed()
    await lookupd.say(greeted, b"PING")  # who is here for longer than that


@pytest.mark.parametrize(
    ("peername", "shown"),
    [
        (("10.0.0.1", 5), "10.0.0.1:5"),
        (("::1", 5, 0, 0), "[::1]:5"),
        (None, "unknown"),
        ("", "unknown"),
    ],
)
def test_format_peer(peername: tuple[str, int] | None, shown: str) -> None:
    assert _format_peer(peername) == shown


@pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
async def test_a_flood_is_answered_one_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [0]  # bytes that were carried out, by round of the loop
    receive = Session.receive

    def received(session: Session, data: bytes, now_ns: int) -> bytes:
        shares[-1] += len(data)
        return receive(session, data, now_ns)

    def tick() -> None:
        shares.append(0)
        ticking[:] = [loop.call_soon(tick)]

    monkeypatch.setattr(Session, "receive", received)
    loop = asyncio.get_running_loop()
    async with running_lookupd() as lookupd:
        with socket.socket() as flood:
            flood.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            await loop.sock_connect(_nonblocking(flood), (HOST, lookupd.listeners.tcp.port))
            sent = flood.send(b"  V1" + b"PING\n" * 300_000)  # what fits before lookupd reads
            assert sent > 4 * _READ
            ticking = [loop.call_soon(tick)]
            answered = 0
            while answered < (sent // 5 - 1) * 6:
                answered += len(await loop.sock_recv(flood, 1 << 20))
            ticking[0].cancel()
    assert max(shares) <= _READ


def _nonblocking(one: socket.socket) -> socket.socket:
    one.setblocking(False)
    return one
