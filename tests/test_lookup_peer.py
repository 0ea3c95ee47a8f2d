"""lookup_peer: the node's side of lookupd, against our real lookupd and against hostile ones (PROTOCOL 5.3)."""

import asyncio
import json
import math
import struct
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from structlog.testing import LogCapture

from pynsqd.core.changes import Change, ChangeKind
from pynsqd.lookup_peer import LookupPeers, _Peer
from tests.support.lookupds import HOST, Lookupd, capture_log, running_lookupd

SECOND = 1_000_000_000
IDENTITY: dict[str, object] = {
    "version": "1.3.0",
    "broadcast_address": "node",
    "hostname": "h",
    "http_port": 4151,
    "tcp_port": 4150,
}


@dataclass
class Node:
    """What the broker would be: topics with their channels, and the peers that are told of changes."""

    topics: dict[str, list[str]]
    peers: LookupPeers
    log: LogCapture

    def change(self, kind: ChangeKind, topic: str, channel: str = "") -> None:
        if kind == "topic_created":
            self.topics[topic] = []
        elif kind == "channel_created":
            self.topics[topic].append(channel)
        elif kind == "channel_deleted":
            self.topics[topic].remove(channel)
        elif kind == "topic_deleted":
            del self.topics[topic]
        self.peers.notify(Change(kind, topic, channel))

    def events(self, name: str) -> list[Any]:
        return [entry for entry in self.log.entries if entry["event"] == name]


@asynccontextmanager
async def running_node(
    *addresses: str,
    topics: dict[str, list[str]] | None = None,
    ping_interval_ns: int = 15 * SECOND,
    request_timeout_ns: int = SECOND,
) -> AsyncIterator[Node]:
    topics = {} if topics is None else topics
    logger, log = capture_log()
    peers = LookupPeers(
        lambda: [(topic, channel) for topic, channels in topics.items() for channel in channels or [""]],
        IDENTITY,
        logger,
        connect_timeout_ns=SECOND,
        request_timeout_ns=request_timeout_ns,
        ping_interval_ns=ping_interval_ns,
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(peers.run, addresses)
        yield Node(topics, peers, log)
        await peers.close()


async def eventually(ask: Callable[[], Awaitable[Any]], expected: Any, within_s: float = 30) -> None:
    """Ask until the answer is ``expected``; fail with the last answer."""
    until = time.monotonic() + within_s
    while (answer := await ask()) != expected and time.monotonic() < until:
        await anyio.sleep(0.005)
    assert answer == expected


async def registered(lookupd: Lookupd) -> list[str]:
    """Return what the producers have registered: ``topic`` or ``topic:channel``, sorted."""
    keys = [key.partition(":")[2].removesuffix(":") for key in await lookupd.get("/debug")]
    return sorted(key for key in keys if key)


def registrations_of(lookupd: Lookupd) -> Callable[[], Awaitable[list[str]]]:
    return lambda: registered(lookupd)


# ---- with a real lookupd


async def test_registers_what_there_is() -> None:
    topics = {"t": ["c", "d#ephemeral"], "empty": [], "e#ephemeral": []}
    async with running_lookupd() as lookupd, running_node(lookupd.address, topics=topics):
        await eventually(registrations_of(lookupd), ["e#ephemeral", "empty", "t", "t:c", "t:d#ephemeral"])
        (node,) = (await lookupd.get("/nodes"))["producers"]
        del node["remote_address"]
        assert node == IDENTITY | {
            "tombstones": [False, False, False],
            "topics": ["t", "empty", "e#ephemeral"],
        }


async def test_tells_changes_at_once() -> None:
    """And not with the next PING (PROCESS 6)."""
    async with running_lookupd() as lookupd, running_node(lookupd.address) as node:
        await eventually(lambda: nodes(lookupd), ["node"])
        for change, expected in (
            (("topic_created", "t"), ["t"]),
            (("channel_created", "t", "c"), ["t", "t:c"]),
            (("paused", "t", "c"), ["t", "t:c"]),
            (("channel_created", "t", "d"), ["t", "t:c", "t:d"]),
            (("channel_deleted", "t", "c"), ["t", "t:d"]),
            (("topic_deleted", "t"), []),
        ):
            node.change(*change)  # type: ignore[arg-type]
            await eventually(registrations_of(lookupd), expected)


async def nodes(lookupd: Lookupd) -> list[str]:
    return [node["broadcast_address"] for node in (await lookupd.get("/nodes"))["producers"]]


async def test_tells_every_lookupd() -> None:
    async with (
        running_lookupd() as one,
        running_lookupd() as two,
        running_node(one.address, two.address, one.address) as node,
    ):
        node.change("topic_created", "t")
        for lookupd in (one, two):
            await eventually(registrations_of(lookupd), ["t"])
            assert await nodes(lookupd) == ["node"]


async def test_a_thousand_topics_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told in a few writes, not in one round trip each."""
    batches: list[int] = []
    exchange = _Peer._exchange

    async def count_batches(peer: _Peer, stream: ByteStream, commands: list[bytes]) -> list[bytes]:
        batches.append(len(commands))
        return await exchange(peer, stream, commands)

    monkeypatch.setattr(_Peer, "_exchange", count_batches)
    async with running_lookupd() as lookupd, running_node(lookupd.address) as node:
        await eventually(lambda: nodes(lookupd), ["node"])
        for number in range(1000):
            node.change("topic_created", f"t{number}")
            node.change("channel_created", f"t{number}", "c")

        async def last() -> Any:
            return await lookupd.get("/channels?topic=t999")

        await eventually(last, {"channels": ["c"]})
        assert len((await lookupd.get("/topics"))["topics"]) == 1000
        assert batches == [1, 500, 500, 500, 500]  # IDENTIFY, then what has come


async def test_lookupd_that_returns_gets_everything_again() -> None:
    first = running_lookupd()
    lookupd = await first.__aenter__()
    address = lookupd.address
    async with running_node(address, topics={"t": ["c"]}) as node:
        await eventually(registrations_of(lookupd), ["t", "t:c"])
        await first.__aexit__(None, None, None)
        await eventually(lambda: count(node, "no connection to lookupd"), 1)
        node.change("topic_created", "new")
        node.change("channel_deleted", "t", "c")
        async with running_lookupd(tcp_address=address) as second:
            await eventually(registrations_of(second), ["new", "t"])
            node.change("channel_created", "new", "d")
            await eventually(registrations_of(second), ["new", "new:d", "t"])


async def count(node: Node, event: str) -> int:
    return len(node.events(event))


async def test_lookupd_that_is_away_costs_five_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynsqd.lookup_peer._BACK_OFF_S", (0.0, 0.001))
    listener = await anyio.create_tcp_listener(local_host=HOST)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    await listener.aclose()
    async with running_node(f"{HOST}:{port}", ping_interval_ns=SECOND // 10) as node:
        await eventually(lambda: more_than(node, "no connection to lookupd", 20), True)
        async with running_lookupd(tcp_address=f"{HOST}:{port}"):
            await eventually(lambda: count(node, "connected to lookupd again"), 1)
            loud = [entry["event"] for entry in node.log.entries if entry["log_level"] != "debug"]
            assert loud == ["no connection to lookupd"] * 5 + ["connected to lookupd again"]


async def more_than(node: Node, event: str, number: int) -> bool:
    return len(node.events(event)) > number


async def test_pings() -> None:
    async with (
        running_lookupd(inactive_producer_timeout_ns=SECOND) as lookupd,
        running_node(lookupd.address, ping_interval_ns=SECOND // 50),
    ):
        await eventually(lambda: nodes(lookupd), ["node"])
        first = await last_update(lookupd)
        await eventually(lambda: later(lookupd, first + SECOND // 10), True)


async def last_update(lookupd: Lookupd) -> int:
    return int((await lookupd.get("/debug"))["client::"][0]["last_update"])


async def later(lookupd: Lookupd, time_ns: int) -> bool:
    return await last_update(lookupd) > time_ns


async def test_close_takes_everything_back() -> None:
    async with running_lookupd() as lookupd:
        topics = {"t": ["c", "d#ephemeral"], "e#ephemeral": []} | {f"t{number}": ["c"] for number in range(300)}
        async with running_node(lookupd.address, topics=topics):
            await eventually(lambda: topic_count(lookupd), 302)
            node = (await lookupd.get("/debug"))["client::"][0]
        # Its commands are done before its connection is: only an UNREGISTER takes ephemeral keys away.
        assert await lookupd.get("/channels?topic=t") == {"channels": ["c"]}
        assert await topic_count(lookupd) == 301
        assert (await lookupd.get("/lookup?topic=t299"))["producers"] == []
        await eventually(lambda: nodes(lookupd), [])
        assert node["broadcast_address"] == "node"


async def test_close_with_nothing_to_take_back_waits_for_no_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynsqd.lookup_peer._LEAVE_TIMEOUT_S", math.inf)
    async with running_lookupd() as lookupd, running_node(lookupd.address) as node:
        await eventually(lambda: nodes(lookupd), ["node"])
        with anyio.fail_after(30):
            await node.peers.close()
        await eventually(lambda: nodes(lookupd), [])


async def topic_count(lookupd: Lookupd) -> int:
    return len((await lookupd.get("/topics"))["topics"])


async def test_set_addresses() -> None:
    async with running_lookupd() as one, running_lookupd() as two, running_node(one.address) as node:
        node.change("topic_created", "t")
        await eventually(registrations_of(one), ["t"])
        node.peers.set_addresses([two.address])
        await eventually(registrations_of(two), ["t"])
        await eventually(lambda: nodes(one), [])
        node.peers.set_addresses([two.address, one.address])
        await eventually(lambda: nodes(one), ["node"])
        node.peers.set_addresses([])
        for lookupd in (one, two):
            await eventually(lambda lookupd=lookupd: nodes(lookupd), [])  # type: ignore[misc]
    node.peers.set_addresses(["127.0.0.1:1"])  # after the end it does nothing


@pytest.mark.parametrize("address", ["", "localhost", ":", "h:0", "h:65536", "h:x", "h:\u0661", "x" * 300 + ":1"])
async def test_bad_address_harms_nobody_and_costs_five_lines(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr("pynsqd.lookup_peer._BACK_OFF_S", (0.0, 0.001))
    async with running_lookupd() as lookupd, running_node(address, lookupd.address) as node:
        await eventually(lambda: nodes(lookupd), ["node"])
        await eventually(lambda: more_than(node, "no connection to lookupd", 9), True)
        assert [entry["log_level"] for entry in node.log.entries].count("warning") == 5


# ---- with hostile ones


class Hostile:
    """A lookupd that answers every read with ``answer``, or closes at once if that is None."""

    def __init__(self, answer: bytes | None, pause_s: float = 0) -> None:
        self.answer = answer
        self.pause_s = pause_s
        self.connections = 0
        self.received = b""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._converse, HOST, 0)
        try:
            yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _converse(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answer is not None and (data := await reader.read(65536)):
                self.received += data
                await self._say(writer, self.answer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _say(self, writer: StreamWriter, answer: bytes) -> None:
        if not self.pause_s:
            writer.write(answer)
        for byte in answer if self.pause_s else b"":
            if writer.is_closing():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(self.pause_s)


IDENTIFIED = json.dumps({"broadcast_address": HOST, "http_port": 1, "tcp_port": 1, "version": "1"}).encode()


def sized(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, "EndOfStream"),
        (b"", "TimeoutError"),
        (b"\0\0", "TimeoutError"),
        (struct.pack(">i", -1), "size -1 is not within 0-5242880"),
        (struct.pack(">i", 2**31 - 1), "size 2147483647 is not within 0-5242880"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "size 1213486160 is not within 0-5242880"),
        (sized(b""), "E_BAD_BODY IDENTIFY failed to decode JSON body"),
        (sized(b"OK"), "E_BAD_BODY IDENTIFY failed to decode JSON body"),
        (sized(b"E_INVALID"), "E_INVALID"),
        (sized(b"E_BAD_BODY IDENTIFY missing fields"), "E_BAD_BODY IDENTIFY missing fields"),
        (sized(b"[" * 100_000), "E_BAD_BODY IDENTIFY failed to decode JSON body"),
        (sized(IDENTIFIED) + b"\0", "an answer to no question"),
    ],
)
async def test_hostile_answers_harm_nobody(monkeypatch: pytest.MonkeyPatch, answer: bytes | None, error: str) -> None:
    monkeypatch.setattr("pynsqd.lookup_peer._ANSWER_TIMEOUT_S", 0.1)
    hostile = Hostile(answer)
    async with (
        hostile.running() as address,
        running_lookupd() as lookupd,
        running_node(address, lookupd.address) as node,
    ):
        await eventually(lambda: nodes(lookupd), ["node"])
        await eventually(lambda: more_than(node, "no connection to lookupd", 1), True)
        node.change("topic_created", "t")
        await eventually(registrations_of(lookupd), ["t"])
        failed = node.events("no connection to lookupd")
        assert {entry["lookupd"] for entry in failed} == {address}
        assert error in failed[0]["error"]


async def test_a_long_name_of_a_lookupd_does_not_fill_the_log() -> None:
    hostile = Hostile(sized(IDENTIFIED.replace(HOST.encode(), b"x" * 100_000)))
    async with hostile.running() as address, running_node(address) as node:
        await eventually(lambda: more_than(node, "connected to lookupd", 0), True)
        await node.peers.channels("t")
        assert node.events("lookupd did not tell channels")
        assert max(len(str(entry)) for entry in node.log.entries) < 1000


async def test_unasked_answers_harm_nobody() -> None:
    """One that comes later than the answer before it."""
    hostile = Hostile(sized(IDENTIFIED) + sized(b""), pause_s=0.0001)
    async with hostile.running() as address, running_node(address) as node:
        await eventually(lambda: more_than(node, "no connection to lookupd", 0), True)
        assert node.events("no connection to lookupd")[0]["error"] == "an answer to no question"


async def test_flapping_lookupd_is_left_in_peace() -> None:
    """Each connection is lost at once; the back-off goes on growing."""
    hostile = Hostile(sized(IDENTIFIED) + sized(b"E_BAD_TOPIC"))
    started = time.monotonic()
    async with hostile.running() as address, running_node(address, topics={"t": []}):
        await eventually(lambda: connections(hostile, 4), True)
        assert time.monotonic() - started > 0.34  # after 0, 50, 150 and 350 ms


async def connections(hostile: Hostile, number: int) -> bool:
    return hostile.connections >= number


async def test_lookupd_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer has to be complete in time, not just going on."""
    monkeypatch.setattr("pynsqd.lookup_peer._ANSWER_TIMEOUT_S", 0.1)
    hostile = Hostile(sized(IDENTIFIED), pause_s=0.02)
    async with hostile.running() as address, running_node(address) as node:
        await eventually(lambda: more_than(node, "no connection to lookupd", 0), True)
        assert node.events("no connection to lookupd")[0]["error"] == "TimeoutError"


async def test_close_does_not_wait_for_a_hanging_lookupd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynsqd.lookup_peer._LEAVE_TIMEOUT_S", 0.1)
    monkeypatch.setattr("pynsqd.lookup_peer._ANSWER_TIMEOUT_S", math.inf)
    hostile = Hostile(sized(IDENTIFIED))
    async with hostile.running() as address, running_node(address) as node:
        await eventually(lambda: count(node, "connected to lookupd"), 1)
        hostile.answer = b""
        node.topics["t"] = []
        started = time.monotonic()
        with anyio.fail_after(30):
            await node.peers.close()
        assert time.monotonic() - started >= 0.09  # the time-out, give or take a tick
        assert b"UNREGISTER t\n" in hostile.received


# ---- channels of a new topic


async def test_channels_are_the_union_of_what_lasts() -> None:
    async with running_lookupd() as one, running_lookupd() as two, running_node(one.address, two.address) as node:
        for lookupd, channels in ((one, ["z", "a", "x%23ephemeral"]), (two, ["m", "a"])):
            for channel in channels:
                await lookupd.post(f"/channel/create?topic=t%23ephemeral&channel={channel}")
        assert await node.peers.channels("t#ephemeral") == ["a", "m", "z"]
        assert await node.peers.channels("unknown") == []


async def test_channels_without_lookupds() -> None:
    async with running_node() as node:
        assert await node.peers.channels("t") == []


async def test_channels_right_after_the_start() -> None:
    """The first topic may come before the first IDENTIFY is answered."""
    async with running_lookupd() as lookupd:
        await lookupd.post("/channel/create?topic=t&channel=c")
        async with running_node(lookupd.address) as node:
            assert not node.events("connected to lookupd")
            assert await node.peers.channels("t") == ["c"]


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"garbage\r\n\r\n",
        http(b'{"channels":["bad"]}', "500 X"),
        http(b'{"channels":["bad"]}', "302 Found\r\nLocation: /"),
        http(b"no json"),
        http(b"null"),
        http(b'{"channels":null}'),
        http(b'{"channels":"bad"}'),
        http(b'{"channels":[1,null,"*","x#ephemeral","b d"]}'),
        http(b"[" * 200_000),
        http(b"\xff"),
        http(b'{"channels":["bad"]}' + b" " * 6_000_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    ],
)
async def test_bad_http_answers_are_ignored(answer: bytes | None) -> None:
    web = Hostile(answer)
    async with web.running() as web_address, running_lookupd() as lookupd:
        port = int(web_address.rpartition(":")[2])
        hostile = Hostile(sized(IDENTIFIED.replace(b'"http_port": 1', b'"http_port": %d' % port)))
        await lookupd.post("/channel/create?topic=t&channel=c")
        async with (
            hostile.running() as address,
            running_node(address, lookupd.address, request_timeout_ns=SECOND // 2) as node,
        ):
            with anyio.fail_after(30):
                assert await node.peers.channels("t") == ["c"]
                assert await node.peers.channels("t") == ["c"]
            assert answer is None or web.received.count(b"GET /channels?topic=t HTTP/1.1\r\n") >= 2
            assert b"GET / " not in web.received
            complaints = node.events("lookupd did not tell channels")
            assert len(complaints) == (0 if b"#ephemeral" in (answer or b"") else 1)


@pytest.mark.parametrize(
    ("host", "port"), [("", 1), ("a/b", 1), ("127.0.0.1", 0), ("127.0.0.1", 70000), ("127.0.0.1", -1), ("x" * 300, 1)]
)
async def test_nonsense_in_its_identity_is_ignored(host: str, port: int) -> None:
    identity = json.dumps({"broadcast_address": host, "http_port": port, "tcp_port": 1, "version": "1"}).encode()
    async with Hostile(sized(identity)).running() as address, running_node(address) as node:
        assert await node.peers.channels("t") == []
        assert len(node.events("lookupd did not tell channels")) == 1
