"""httpapi/ingest: the fast path on real sockets, on both event loops."""

import asyncio
import gc

import anyio
import pytest

from pynsqd.core.group_commit import GroupCommit
from pynsqd.httpapi.heads import read_head
from pynsqd.httpapi.ingest import Ingest
from pynsqd.options import Options
from pynsqd.wire.errors import StorageError
from tests.httpapi.client import HttpClient, request
from tests.httpapi.running import RunningNode, let_read, running_node, until

V1_TEXT = {
    "content-type": "text/plain; charset=utf-8",
    "x-nsq-content-type": "nsq; version=1.0",
    "content-length": "2",
}
PUB = request("POST /pub?topic=t", b"hello")
PING = request("GET /ping")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    if request.param:
        pytest.importorskip("uvloop")
    return ("asyncio", {"use_uvloop": request.param})


async def test_a_publish(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        answer = await client.ask("POST /pub?topic=t", b"hello")
        assert (answer.version, answer.status, answer.body) == ("HTTP/1.1", 200, b"OK")
        assert answer.headers.pop("date").endswith(" GMT")
        assert answer.headers == V1_TEXT
        assert node.stored() == [b"hello"]


async def test_what_is_not_in_the_log_is_not_answered_ok(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        node.storage.refuse_open["t"] = "open t: no space left"
        answer = await client.ask("POST /pub?topic=t", b"hello")
        assert (answer.status, answer.body) == (503, b'{"message":"STORAGE_FAILED"}')
        node.storage.refuse_open.clear()
        assert (await client.ask("POST /pub?topic=t", b"hello")).status == 200
        node.storage.refuse_append("t", "write t: no space left")
        for line in ("POST /pub?topic=t", "POST /pub?topic=t&defer=1", "POST /mpub?topic=t"):
            answer = await client.ask(line, b"hello")
            assert (answer.status, answer.body) == (503, b'{"message":"STORAGE_FAILED"}')
            assert answer.headers["content-type"] == "application/json; charset=utf-8"
        node.storage.refuse_append("t", "")
        assert (await client.ask("POST /pub?topic=t", b"again")).status == 200
        assert node.stored() == [b"hello", b"again"]


async def test_one_bad_append_fails_only_its_own_answers(node: RunningNode) -> None:
    await node.ask("POST /pub?topic=bad", b"x")
    node.storage.refuse_append("bad", "write bad: no space left")
    bad = request("POST /pub?topic=bad", b"x")
    async with await HttpClient.open(node.port) as client:
        await client.send(PUB + bad + PING + bad + request("POST /pub?topic=t", b"bye", "Connection: close"))
        answers = await client.answers()
    assert [answer.status for answer in answers] == [200, 503, 200, 503, 200]
    assert [answer.headers.get("connection") for answer in answers] == [None, None, None, None, "close"]
    assert node.stored() == [b"hello", b"bye"]


async def test_answers_that_wait_for_an_fsync_are_held_back(node: RunningNode) -> None:
    groups = _held_until_settled(node)
    async with await HttpClient.open(node.port) as client:
        await client.send(PING + PUB + PING)
        assert (await client.answer()).body == b"OK"
        await until(lambda: len(groups) == 1)
        await client.send(PUB + request("GET /info"))
        await until(lambda: len(groups) == 2)
        with anyio.move_on_after(0.1):
            raise AssertionError(await client.answer())
        groups.pop(0).settle({})
        assert [(await client.answer()).status for _ in "PP"] == [200, 200]
        with anyio.move_on_after(0.1):
            raise AssertionError(await client.answer())
        groups.pop(0).settle({})
        assert [(await client.answer()).status for _ in "PG"] == [200, 200]
    assert node.stored() == [b"hello", b"hello"]


async def test_a_failed_fsync_fails_only_its_own_answers(node: RunningNode) -> None:
    groups = _held_until_settled(node)
    node.broker.open_topic("log", "log")
    async with await HttpClient.open(node.port) as client:
        await client.send(PING + PUB + request("POST /pub?topic=log", b"x") + PUB)
        await until(lambda: len(groups) == 1)
        await client.send(PUB)
        await until(lambda: len(groups) == 2)
        groups.pop(0).settle({node.broker.topics["t"]: StorageError("sync t: input/output error")})
        groups.pop(0).settle({})
        assert [(await client.answer()).status for _ in range(5)] == [200, 503, 200, 503, 200]


def _held_until_settled(node: RunningNode) -> list[GroupCommit]:
    """Let publishes to t wait for an fsync; the list is of the turns that do."""
    groups: list[GroupCommit] = []

    def hold() -> None:
        awaiting, node.broker.awaiting_sync = node.broker.awaiting_sync, {}
        if awaiting:
            groups.append(GroupCommit(awaiting))

    node.node.turn.after_turn = hold
    node.broker.open_topic("t", "fsync")
    return groups


async def test_little_is_read_of_what_has_to_wait(node: RunningNode) -> None:
    """Behind answers that wait for a slow fsync, for the general path."""
    async with await HttpClient.open(node.port) as client:
        await client.ask("GET /ping")
        (connection,) = node.ingest.connections
        connection.hold(0)
        await client.send(PUB + request("GET /info"))
        await until(node.stored)
        with anyio.move_on_after(0.3):
            while True:
                await client._stream.send(request("GET /info") * 10_000)
        assert len(connection._rest) < 1_000_000
        connection.let_go(())
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]


async def test_a_client_that_does_not_read_stays_known_as_such(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        await client.ask("GET /ping")
        (connection,) = node.ingest.connections
        connection.hold(0)
        await client.send(PUB + request("GET /info"))
        await until(node.stored)
        connection.pause_writing()  # as the transport does when too much is unread
        connection.let_go(())
        assert (await client.answer()).status == 200
        (taken,) = node.ingest.general.connections
        assert taken.writing_paused
        taken.resume_writing()
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("version", "connection", "answered", "kept"),
    [
        ("1.1", "", None, True),
        ("1.1", "Connection: keep-alive\r\n", None, True),
        ("1.1", "Connection: Close\r\n", "close", False),
        ("1.1", "Connection: x, close\r\n", "close", False),
        ("1.0", "", None, False),
        ("1.0", "Connection: Keep-Alive\r\n", "keep-alive", True),
        ("1.0", "Connection: close\r\n", None, False),
    ],
)
@pytest.mark.parametrize("broken", [False, True])
async def test_keeping_and_closing(
    node: RunningNode, version: str, connection: str, answered: str | None, *, kept: bool, broken: bool
) -> None:
    if broken:
        node.storage.refuse_append("t", "write t: no space left")
    publish = f"POST /pub?topic=t HTTP/{version}\r\nHost: x\r\n{connection}Content-Length: 1\r\n\r\nx".encode()
    ping = f"GET /ping HTTP/{version}\r\nHost: x\r\n{connection}\r\n".encode()
    for raw, status in ((publish, 503), (ping, 500)) if broken else ((publish, 200), (ping, 200)):
        async with await HttpClient.open(node.port) as client:
            await client.send(raw)
            answer = await client.answer()
            assert (answer.version, answer.status) == (f"HTTP/{version}", status)
            assert answer.headers.get("connection") == answered
            if not kept:
                await client.closed()
            else:
                await client.send(raw)
                assert (await client.answer()).status == status


async def test_split_at_any_byte(node: RunningNode) -> None:
    raw = PUB + request("POST /mpub?topic=t", b"a\nb") + PING
    async with await HttpClient.open(node.port) as client:
        for cut in range(1, len(raw)):
            await client.send(raw[:cut])
            await let_read()
            await client.send(raw[cut:])
            assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]
    assert node.stored() == [b"hello", b"a", b"b"] * (len(raw) - 1)


@pytest.mark.parametrize(
    "raw",
    [
        PUB,
        request("POST /pub?topic=new", b"first of its topic"),
        request("POST /pub?topic=t", b"last", "Connection: close"),
        request("POST /pub?topic=t", b"by nginx").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request("POST /pub?topic=t", b"by ab", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request("POST /pub?topic=t", b"\r\n\r\nPOST /pub\r\n\r\n"),
        request("POST /pub?topic=t", b""),
        request("POST /pub?topic=t"),
        request("POST /pub?topic=$", b"x"),
        request("POST /pub", b"x"),
        request("POST /pub?topic=later&defer=60000", b"x"),
        request("POST /pub?topic=later&defer=x", b"x"),
        request("POST /mpub?topic=t", b"a\nb"),
        PUB + PUB[:-1],
        PUB + PING + PUB,
        PING,
    ],
)
async def test_a_read_with_all_of_a_known_request_is_as_any_other(raw: bytes) -> None:
    """A whole POST /pub goes a shorter way. The answers and what is stored are those of the long one."""
    heard = []
    for cut in (len(raw) - 1, len(raw)):
        async with running_node() as node:
            await node.ask("POST /pub?topic=t", b"hello")
            for _ in range(3):  # its head is known after the first, its topic is there
                async with await HttpClient.open(node.port) as client:
                    await client.send(raw[:cut])
                    await let_read()
                    if raw[cut:]:
                        await client.send(raw[cut:])
                    await client.shutdown_write()
                    heard.append([answer.same() for answer in await client.answers()])
            counts = {name: (topic.message_count, topic.depth) for name, topic in node.broker.topics.items()}
            heard.append([node.stored(name) for name in counts] + [counts])  # type: ignore[list-item]
    assert heard[:4] == heard[4:]


async def test_byte_by_byte(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        for byte in PUB:
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200
    assert node.stored() == [b"hello"]


async def test_a_thousand_in_one_write(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        await client.send(PUB * 1000)
        for _ in range(1000):
            assert (await client.answer()).status == 200
    assert node.stored() == [b"hello"] * 1000


async def test_answers_keep_the_order_of_requests(node: RunningNode) -> None:
    raw = PUB + PING + request("POST /pub?topic=$", b"x") + request("GET /info") + PUB
    async with await HttpClient.open(node.port) as client:
        await client.send(raw)
        answers = [await client.answer() for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 400, 200, 200]
    assert answers[3].body.startswith(b'{"version"')
    assert node.stored() == [b"hello", b"hello"]


async def test_what_comes_after_a_close_is_not_looked_at(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        await client.send(request("POST /pub?topic=t", b"last", "Connection: close") + PUB)
        assert [answer.status for answer in await client.answers()] == [200]
    assert node.stored() == [b"last"]


async def test_bodies_up_to_the_limit() -> None:
    async with running_node(Options(max_msg_size=300_000, max_body_size=400_000)) as node:
        assert (await node.ask("POST /pub?topic=t", 300_000 * b"x")).status == 200
        assert (await node.ask("POST /mpub?topic=t", 300_000 * b"x" + b"\n" + 99_999 * b"y")).status == 200
        assert [len(body) for body in node.stored()] == [300_000, 300_000, 99_999]
        for path, message in (("/pub", b"MSG_TOO_BIG"), ("/mpub", b"BODY_TOO_BIG")):
            async with await HttpClient.open(node.port) as client:
                # Only the head: the answer does not wait for what is refused anyway.
                await client.send(request(f"POST {path}?topic=t", None, "Content-Length: 400001"))
                answer = await client.answer()
                assert (answer.status, answer.headers["connection"]) == (413, "close")
                assert answer.body == b'{"message":"' + message + b'"}'
                await client.closed()


async def test_a_declared_size_takes_no_memory(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        await client.send(request("POST /pub?topic=t", None, "Content-Length: 1048576") + b"x")
        await until(lambda: any(one._pending for one in node.ingest.connections))
        assert all(len(one._pending) < 200 for one in node.ingest.connections)


@pytest.mark.parametrize(
    "raw",
    [
        request("GET /info"),
        request("POST /pub?topic=t", b"1\r\nx\r\n0\r\n\r\n").replace(
            b"Content-Length: 11", b"Transfer-Encoding: chunked"
        ),
        request("POST /%70ub?topic=t", b"x"),
        request("POST http://node/pub?topic=t", b"x"),
        request("POST /pub?topic=t", b"x", "Expect: 100-continue"),
        request("POST /pub?topic=t", b"x", "X-Long: " + 9000 * "x"),
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"POST /pub?topic=t HTTP/1.1\nHost: x\nContent-Length: 1\n\nx",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
    ids=["path", "chunked", "escaped", "absolute", "expect", "long", "hostless", "newlines", "noise"],
)
async def test_what_is_handed_over_arrives_as_it_was_sent(raw: bytes) -> None:
    """The general path sees the very bytes, whole or byte by byte, behind answers that have been given already."""
    async with running_node(general=False) as node:
        taken: list[bytes] = []
        node.ingest.serve_general(Recorder(taken))
        for pieces in ([raw], [bytes([byte]) for byte in raw]):
            taken.clear()
            async with await HttpClient.open(node.port) as client:
                await client.send(PUB)
                assert (await client.answer()).status == 200
                for piece in pieces:
                    await client.send(piece)
                await until(lambda: b"".join(taken) == raw)


class Recorder:
    """A general path that notes what it gets."""

    def __init__(self, taken: list[bytes]) -> None:
        self._taken = taken

    def __call__(self) -> "Recording":
        return Recording(self._taken)

    def close(self) -> None:
        pass


class Recording(asyncio.Protocol):
    def __init__(self, taken: list[bytes]) -> None:
        self._taken = taken

    def data_received(self, data: bytes) -> None:
        self._taken.append(data)


async def test_requests_wait_for_the_general_path() -> None:
    async with (
        running_node(general=False) as node,
        await HttpClient.open(node.port) as early,
        await HttpClient.open(node.port) as gone,
    ):
        await early.send(PUB + request("GET /info") + PING)
        await gone.send(request("GET /info"))
        assert (await early.answer()).status == 200
        assert (await node.ask("GET /ping")).body == b"OK"
        await until(lambda: len(node.ingest.parked) == 2)
        await gone.__aexit__()
        await node.serve_general()
        assert (await early.answer()).body.startswith(b'{"version"')
        assert (await early.answer()).body == b"OK"


@pytest.mark.parametrize("split", [False, True])
async def test_half_close_is_answered(node: RunningNode, split: bool) -> None:
    for raw, statuses in (
        (PUB, [200]),
        (PUB + PING, [200, 200]),
        (request("GET /info") + request("GET /info"), [200, 200]),
        (PUB + request("GET /info"), [200, 200]),
        (PUB + request("POST /pub?topic=t", None, "Content-Length: 5") + b"abc", [200, 500]),
        (b"", []),
        (b"GET /pi", []),
        (PUB + b"POST /pub?topic", [200]),
    ):
        async with await HttpClient.open(node.port) as client:
            await client.send(raw[:-1] if split else raw)
            if split and raw:
                await let_read()
                await client.send(raw[-1:])
            await client.shutdown_write()
            assert [answer.status for answer in await client.answers()] == statuses, raw


async def test_a_connection_each(node: RunningNode) -> None:
    for _ in range(200):
        async with await HttpClient.open(node.port) as client:
            assert (await client.ask("POST /pub?topic=t", b"x", "Connection: close")).status == 200
            await client.closed()
    await until(lambda: not node.ingest.connections)
    assert len(node.stored()) == 200


async def test_the_answers_to_one_client_are_bounded(node: RunningNode) -> None:
    """However much it has sent at once: libuv reads on and on before it lets anybody write."""
    async with await HttpClient.open(node.port) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.send, PING * 400_000)
            await until(lambda: any(one._stuck for one in node.ingest.connections))
            tasks.cancel_scope.cancel()
        unread = [one._transport.get_write_buffer_size() for one in node.ingest.connections]
        assert 0 < max(unread) < 4_000_000


async def test_a_client_that_does_not_read_is_not_read(node: RunningNode) -> None:
    """Unread answers do not pile up: the server stops reading, and goes on when the client does."""
    sent = 0
    async with await HttpClient.open(node.port) as client:
        with anyio.move_on_after(30):
            while not any(one._stuck for one in node.ingest.connections):
                await client._stream.send(PING * 500)
                sent += 500
        assert any(one._stuck for one in node.ingest.connections)
        for _ in range(sent):
            assert (await client.answer()).body == b"OK"
        assert (await client.ask("GET /ping")).body == b"OK"


async def test_the_sweep_drops_what_stands_still() -> None:
    async with (
        running_node(general=False) as node,
        await HttpClient.open(node.port) as half_head,
        await HttpClient.open(node.port) as half_body,
        await HttpClient.open(node.port) as parked,
        await HttpClient.open(node.port) as idle,
    ):
        await half_head.send(PUB[:20])
        await half_body.send(PUB[:-1])
        await parked.send(request("GET /info"))
        await idle.ask("GET /ping")
        await until(lambda: sum(bool(one._pending) for one in node.ingest.connections) == 2 and node.ingest.parked)
        now = node.ingest.second
        for connection in tuple(node.ingest.connections):
            connection.sweep(now + 59)
        await half_head.send(PUB[20:])
        assert (await half_head.answer()).status == 200
        for connection in tuple(node.ingest.connections):
            connection.sweep(now + 61)
        await half_body.closed()
        await until(lambda: len(node.ingest.connections) == 2)
        await node.serve_general()  # finds that the parked one has gone
        for client in (half_head, idle):
            assert (await client.ask("GET /ping")).status == 200
        for connection in tuple(node.ingest.connections):
            connection.sweep(now + 3700)
        await idle.closed()


async def test_the_clock_sweeps(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as half, await HttpClient.open(node.port) as other:
        await half.send(PUB[:-1])
        await until(lambda: any(one._pending for one in node.ingest.connections))
        await other.ask("GET /ping")
        node.ingest.second = 99  # as if it had been 98 seconds; the next is one that sweeps
        await half.closed()
        assert (await other.ask("GET /ping")).status == 200


async def test_the_clock_runs_only_while_there_are_connections(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        first = (await client.ask("GET /ping")).headers["date"]
        await until(lambda: node.ingest.date != first)
        assert (await client.ask("GET /ping")).headers["date"] == node.ingest.date
        assert node.ingest._clock is not None
    await until(lambda: node.ingest._clock is None)
    assert (await node.ask("GET /ping")).status == 200


async def test_known_heads_are_bounded(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        for number in range(2500):
            assert (await client.ask(f"POST /pub?topic=t&x={number}", b"x")).status == 200
        assert 0 < len(node.ingest.heads) <= 2048
        known = len(node.ingest.heads)
        await client.ask("POST /pub?topic=t", b"x", "Cookie: " + 2000 * "x")
        assert len(node.ingest.heads) == known


async def test_unhealthy(node: RunningNode) -> None:
    assert (await node.ask("POST /pub?topic=t", b"x")).status == 200
    node.storage.refuse_append("t", "write t: no space left")
    assert (await node.ask("POST /pub?topic=t", b"x")).status == 503
    answer = await node.ask("GET /ping")
    assert (answer.status, answer.body) == (500, b"NOK - write t: no space left")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "x-nsq-content-type" not in answer.headers


def test_reading_heads_leaves_no_cycles_to_collect() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(1000):
            assert read_head(b"POST /pub?topic=t HTTP/1.1\r\nHost: n\r\nContent-Length: 1", Options()) is not None
        assert gc.collect() < 1000
    finally:
        gc.enable()


async def test_close_closes_all_connections(node: RunningNode) -> None:
    async with (
        await HttpClient.open(node.port) as fast,
        await HttpClient.open(node.port) as general,
        await HttpClient.open(node.port) as half,
    ):
        await fast.ask("GET /ping")
        await general.ask("GET /info")
        await half.send(PUB[:-1])
        await until(lambda: any(one._pending for one in node.ingest.connections))
        node.ingest.close()
        for client in (fast, general, half):
            await client.closed()


async def test_two_nodes_share_nothing() -> None:
    async with running_node() as one, running_node() as other:
        assert (await one.ask("POST /pub?topic=t", b"x")).status == 200
        assert not other.broker.topics
        assert isinstance(one.ingest, Ingest)
        assert not other.ingest.heads
