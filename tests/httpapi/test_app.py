"""httpapi/app: /ping, /info, what has no route, and the publishes that the ingest hands over."""

import json
import socket
import time
from collections.abc import Iterator
from unittest.mock import MagicMock

import anyio
import pytest

from pynsqd.httpapi import app
from pynsqd.httpapi.node import Node
from pynsqd.net.turn import Turn
from pynsqd.options import Options
from tests.httpapi.client import HttpClient, request
from tests.httpapi.running import RunningNode, running_node, until
from tests.support.wire import sized

V1 = {"x-nsq-content-type": "nsq; version=1.0"}
V1_JSON = V1 | {"content-type": "application/json; charset=utf-8"}
CHUNKED = "Transfer-Encoding: chunked"


async def test_info(node: RunningNode) -> None:
    answer = await node.ask("GET /info")
    assert answer.status == 200
    assert answer.headers.items() >= V1_JSON.items()
    info = json.loads(answer.body)
    assert 0 <= time.time() - info.pop("start_time") < 60
    assert list(info.items()) == [
        ("version", "1.3.0"),
        ("broadcast_address", node.node.options.broadcast_address),
        ("hostname", socket.gethostname()),
        ("http_port", node.port),
        ("tcp_port", 4150),
        ("max_heartbeat_interval", 60_000_000_000),
        ("max_output_buffer_size", 65536),
        ("max_output_buffer_timeout", 30_000_000_000),
        ("max_deflate_level", 6),
    ]
    assert answer.body.index(b'"start_time"') > answer.body.index(b'"tcp_port"')


def test_options_in_force() -> None:
    options = Options(broadcast_address="1.2.3.4", statsd_prefix="a.%s")
    parts = dict.fromkeys(("turn", "logs", "peers", "ingest", "tcp_door", "drain", "timings", "loop_lag"), MagicMock())
    node = Node(options=options, **parts, tcp_port=1, http_port=2)
    assert (node.options.broadcast_tcp_port, node.options.broadcast_http_port) == (1, 2)
    assert node.options.statsd_prefix == "a.1_2_3_4_2."
    options = Options(broadcast_address="h", broadcast_tcp_port=3, broadcast_http_port=4)
    node = Node(options=options, **parts, tcp_port=-1, http_port=-1)
    assert (node.options.broadcast_tcp_port, node.options.broadcast_http_port) == (3, 4)
    assert node.options.statsd_prefix == "nsq.h_4."
    assert (node.tcp_port, node.http_port) == (-1, -1)


@pytest.mark.parametrize(
    ("line", "status", "allow", "message"),
    [
        ("GET /nope", 404, None, "NOT_FOUND"),
        ("GET /", 404, None, "NOT_FOUND"),
        ("GET /pub?topic=t", 405, "OPTIONS, POST", "METHOD_NOT_ALLOWED"),
        ("GET /mpub?topic=t", 405, "OPTIONS, POST", "METHOD_NOT_ALLOWED"),
        ("POST /ping", 405, "GET, OPTIONS", "METHOD_NOT_ALLOWED"),
        ("DELETE /config/id", 405, "GET, OPTIONS, PUT", "METHOD_NOT_ALLOWED"),
    ],
)
async def test_no_route(node: RunningNode, line: str, status: int, allow: str | None, message: str) -> None:
    answer = await node.ask(line)
    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    assert answer.headers.items() >= V1_JSON.items()
    assert json.loads(answer.body) == {"message": message}


async def test_a_chunked_publish(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        await client.send(request("POST /pub?topic=t", None, CHUNKED) + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"OK")
        assert answer.headers.items() >= {**V1, "content-type": "text/plain; charset=utf-8"}.items()
        await client.send(request("POST /mpub?topic=t", None, CHUNKED) + b"3\r\nd\ne\r\n0\r\n\r\n")
        assert (await client.answer()).status == 200
    assert node.stored() == [b"abc", b"d", b"e"]


async def test_chunked_bodies_are_bounded_too() -> None:
    chunk = b"64\r\n" + 100 * b"x" + b"\r\n"
    async with running_node(Options(max_msg_size=250, max_body_size=450)) as node:
        for line, chunks, message in (
            ("/pub?topic=t", 3, "MSG_TOO_BIG"),
            ("/mpub?topic=t", 5, "BODY_TOO_BIG"),
            ("/mpub?topic=t&binary=true", 5, "BODY_TOO_BIG"),
        ):
            async with await HttpClient.open(node.port) as client:
                await client.send(request(f"POST {line}", None, CHUNKED) + chunk * chunks)
                answer = await client.answer()
                assert (answer.status, answer.headers["connection"]) == (413, "close")
                assert json.loads(answer.body) == {"message": message}
        assert node.stored() == []


async def test_continue_is_sent_for_a_body_that_is_wanted(node: RunningNode) -> None:
    expecting = ("Content-Length: 5", "Expect: 100-continue")
    async with await HttpClient.open(node.port) as client:
        await client.send(request("POST /pub?topic=t", None, *expecting))
        assert (await client.answer()).status == 100
        await client.send(b"hello")
        assert (await client.answer()).status == 200
        await client.send(request("POST /mpub?topic=$", None, *expecting))
        assert (await client.answer()).status == 400
    async with await HttpClient.open(node.port) as client:
        await client.send(request("POST /pub?topic=t", None, "Content-Length: 9999999", "Expect: 100-continue"))
        assert (await client.answer()).status == 413
    assert node.stored() == [b"hello"]


async def test_compressed_bodies_are_stored_as_they_come(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        answer = await client.ask("POST /%70ub?topic=t", b"no gzip", "Content-Encoding: gzip")
        assert answer.status == 200
    assert node.stored() == [b"no gzip"]


async def test_a_publish_that_is_not_in_the_log(node: RunningNode) -> None:
    await node.ask("POST /%70ub?topic=t", b"x")
    node.storage.refuse_append("t", "write t: no space left")
    for line in ("POST /%70ub?topic=t", "POST /%6dpub?topic=t", "POST /%70ub?topic=t&defer=5"):
        answer = await node.ask(line, b"x")
        assert (answer.status, answer.body) == (503, b'{"message":"STORAGE_FAILED"}')
    node.storage.refuse_open["u"] = "open u: no space left"
    for line in ("POST /%70ub?topic=u", "POST /topic/create?topic=u"):
        answer = await node.ask(line, b"x")
        assert (answer.status, answer.body) == (503, b'{"message":"STORAGE_FAILED"}')
    assert (await node.ask("GET /ping")).status == 500
    assert (await node.ask("GET /%70ing")).status == 500


async def test_a_publish_waits_for_its_fsync(node: RunningNode) -> None:
    held = []

    def hold() -> None:
        for publishers in node.broker.awaiting_sync.values():
            for publisher, _, _ in publishers:
                publisher.hold(0)
                held.append(publisher)
        node.broker.awaiting_sync.clear()

    node.node.turn.after_turn = hold
    node.broker.open_topic("t", "fsync")
    async with await HttpClient.open(node.port) as client:
        await client.send(request("POST /%70ub?topic=t", b"x"))
        await until(lambda: held)
        with anyio.move_on_after(0.1):
            raise AssertionError(await client.answer())
        held[0].let_go(())
        assert (await client.answer()).status == 200


async def test_a_bug_is_an_internal_error_and_logged(node: RunningNode) -> None:
    node.broker.stats = None  # type: ignore[assignment,method-assign]
    answer = await node.ask("GET /stats")
    assert (answer.status, answer.body) == (500, b'{"message":"INTERNAL_ERROR"}')
    assert node.logs.lines[0][1]["path"] == "/stats"


# -- large batches -----------------------------------------------------------------------------------------------


LINES = [b"%05d" % number for number in range(60_000)]
LARGE = {
    "/mpub?topic=t": b"\n".join(LINES),
    "/mpub?topic=t&binary=true": len(LINES).to_bytes(4, "big") + b"".join(map(sized, LINES)),
}


@pytest.mark.parametrize("target", LARGE)
async def test_a_large_batch_takes_several_turns(
    target: str, node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    cut: list[int] = []
    end, split = Turn._end, app.split

    def ended(turn: Turn) -> None:
        nonlocal turns
        turns += 1
        end(turn)

    def noted(body: bytes, binary: bool, options: Options) -> Iterator[tuple[bytes, int]]:
        for part in split(body, binary, options):
            cut.append(turns)
            yield part

    monkeypatch.setattr(Turn, "_end", ended)
    monkeypatch.setattr(app, "split", noted)
    async with await HttpClient.open(node.port) as client:
        assert (await client.ask(f"POST {target}", LARGE[target])).status == 200
    assert len(cut) == len(set(cut)) > 5
    topic = node.broker.topics["t"]
    assert (topic.depth, topic.message_count, topic.message_bytes) == (60_000, 60_000, 300_000)
    assert node.stored() == LINES


@pytest.mark.parametrize("newlines", [10, 300_000])
async def test_empty_lines_between_messages(newlines: int, node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as client:
        assert (await client.ask("POST /mpub?topic=t", b"a" + b"\n" * newlines + b"b")).status == 200
    assert node.stored() == [b"a", b"b"]


@pytest.mark.parametrize("target", LARGE)
async def test_a_large_batch_with_a_bad_end_is_refused_whole(target: str, node: RunningNode) -> None:
    too_long = bytes(node.node.options.max_msg_size + 1)
    bad = LARGE[target] + b"\n" + too_long
    if "binary" in target:
        bad = (len(LINES) + 1).to_bytes(4, "big") + LARGE[target][4:] + sized(too_long)
    async with await HttpClient.open(node.port) as client:
        answer = await client.ask(f"POST {target}", bad)
    code = "BAD_MESSAGE" if "binary" in target else "MSG_TOO_BIG"
    assert (answer.status, json.loads(answer.body)) == (413, {"message": code})
    assert node.broker.topics["t"].depth == 0


async def test_a_large_batch_that_the_disk_refuses(node: RunningNode) -> None:
    assert (await node.ask("POST /topic/create?topic=t")).status == 200
    node.storage.refuse_append("t", "no space left on device")
    async with await HttpClient.open(node.port) as client:
        answer = await client.ask("POST /mpub?topic=t", LARGE["/mpub?topic=t"])
        assert (answer.status, answer.body) == (503, b'{"message":"STORAGE_FAILED"}')
        node.storage.refuse_append("t", "")
        assert (await client.ask("POST /mpub?topic=t", b"\n" * 300_000)).status == 200
    assert node.broker.topics["t"].depth == 0
