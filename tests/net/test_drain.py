"""The drain of a node: what is refused, what goes on, when it is over."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from pynsqd.net import drain
from tests.support.lookupds import running_lookupd
from tests.support.nodes import OK, V2, Inside, eventually, inside
from tests.support.wire import ERROR, Frame, HttpAnswer, http, mpub, sized

EXITING = b'{"message":"EXITING"}'


async def begin(node: Inside, more: str = "") -> Any:
    answer = await node.api.post(f"/drain{more}")
    assert answer.status == 200, answer
    return json.loads(answer.body)


async def with_messages(node: Inside, *bodies: bytes) -> None:
    await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
    for body in bodies:
        assert (await node.api.post("/pub?topic=t", body)).status == 200


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        (b"PUB t\n" + sized(b"x"), b"PUB"),
        (b"PUB new\n" + sized(b"x"), b"PUB"),
        (mpub(b"t", [b"x", b"y"]), b"MPUB"),
        (b"DPUB t 1000\n" + sized(b"x"), b"DPUB"),
        (b"PUB t\n" + sized(b"x") + b"PUB t\n" + sized(b"y"), b"PUB"),
        (b"SUB new c\n", b"SUB"),
    ],
)
async def test_refused_over_tcp(tmp_path: Path, line: bytes, verb: bytes) -> None:
    """With nsqd's words for a node that stops, and its close."""
    async with inside(tmp_path) as node:
        await with_messages(node, b"a")
        await begin(node)
        client = await V2.open(node.tcp)
        assert await client.ask(line) == Frame(ERROR, b"E_%s_FAILED %s failed exiting" % (verb, verb))
        await client.expect_closed()
        await client.close()
        assert [topic["topic_name"] for topic in (await node.api.stats())["topics"]] == ["t"]
        assert await node.api.owes() == (1, 0, 0)
        assert (await node.api.stats())["health"] == "OK"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("target", ["/pub?topic=t", "/pub?topic=new", "/pub?topic=t&defer=5", "/mpub?topic=t"])
async def test_refused_over_http(tmp_path: Path, target: str, chunked: bool) -> None:
    """By both paths, and so that a balancer goes on to the next node."""
    async with inside(tmp_path) as node:
        await with_messages(node, b"a")
        await begin(node)
        answer = await publish(node, target, chunked)
        assert (answer.status, answer.body, answer.headers["retry-after"]) == (503, EXITING, "1")
        assert [topic["topic_name"] for topic in (await node.api.stats())["topics"]] == ["t"]
        assert await node.api.owes() == (1, 0, 0)


async def publish(node: Inside, target: str, chunked: bool) -> HttpAnswer:
    if not chunked:
        return await node.api.post(target, b"x")
    headers = {"Transfer-Encoding": "chunked"}
    return await http(node.api.address, f"POST {target}", b"1\r\nx\r\n0\r\n\r\n", headers=headers)


async def test_what_came_in_the_same_turn_is_kept_or_refused_as_a_whole(tmp_path: Path) -> None:
    """Every OK that was sent is for a message that the node has."""
    async with inside(tmp_path) as node:
        await with_messages(node)
        client = await V2.open(node.tcp)
        await client.send((b"PUB t\n" + sized(b"x")) * 50)
        await begin(node)
        await client.send((b"PUB t\n" + sized(b"x")) * 50)
        accepted = 0
        while (await client.frame()) == OK:
            accepted += 1
        assert (await node.api.owes())[0] == accepted >= 50
        await client.close()


async def test_consumers_get_what_there_is_and_it_ends(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        await with_messages(node, b"a", b"b", b"c")
        first = await V2.consumer(node.tcp, 1)
        (a,) = await first.messages(1)
        shown = await begin(node)
        assert shown == {"message": "draining", "depth": 2, "in_flight_count": 1, "deferred_count": 0}
        assert (await begin(node))["message"] == "already draining"
        await first.send(b"REQ %s 200\n" % a.id)
        second = await V2.consumer(node.tcp, 5)  # who comes only now is welcome
        bodies = []

        async def work(client: V2) -> None:
            while True:
                message = await client.message()
                bodies.append(message.body)
                await client.send(b"FIN %s\n" % message.id)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, first)
            tasks.start_soon(work, second)
            with anyio.fail_after(30):
                await node.listeners.drain.finished.wait()
            tasks.cancel_scope.cancel()
        assert sorted(bodies) == [b"a", b"b", b"c"]
        assert node.logged("'drained'")
        await first.close()
        await second.close()


async def test_an_empty_node_is_done_at_once(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        await begin(node)
        with anyio.fail_after(30):
            await node.listeners.drain.finished.wait()


@pytest.mark.parametrize("how", ["topic", "deferred", "in flight"])
async def test_anything_that_is_left_keeps_it_going_to_its_deadline(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "_TELL_S", 0.15)
    async with inside(tmp_path) as node:
        consumer = None
        await node.api.do("/topic/create?topic=t")
        if how != "topic":
            await node.api.do("/channel/create?topic=t&channel=c")
        assert (await node.api.post("/pub?topic=t" + "&defer=60000" * (how == "deferred"), b"x")).status == 200
        if how == "in flight":
            consumer = await V2.consumer(node.tcp, 1)
            await consumer.message()
        shown = await begin(node, "?timeout=1s")
        assert sum(shown[key] for key in ("depth", "in_flight_count", "deferred_count")) == 1
        assert (await http(node.api.address, "GET /readyz")).status == 503
        assert (await http(node.api.address, "GET /livez")).status == 200
        assert await node.api.ping() == (200, b"OK")
        seen = (await node.api.stats())["drain"]
        assert seen["deadline"] - seen["start_time"] in (1, 2)
        with anyio.fail_after(30):
            await node.listeners.drain.finished.wait()
        assert node.logged("not drained in time")
        assert 2 <= sum("'draining'" in str(line) for line in node.logs.lines) <= 7
        if consumer:
            await consumer.close()
    async with inside(tmp_path) as node:
        topic = await node.api.topic()
        left: Sequence[int] = [topic["depth"]] if how == "topic" else await node.api.owes()
        assert sum(left) == 1


async def test_a_second_request_can_only_shorten_it(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        await with_messages(node, b"x")
        await begin(node)
        assert (await node.api.stats())["drain"]["deadline"] is None
        await begin(node, "?timeout=1h")
        await begin(node, "?timeout=2h")
        assert 3500 < node.listeners.drain.deadline_s - node.listeners.drain.began_s < 3700  # type: ignore[operator]
        await begin(node, "?timeout=200ms")
        with anyio.fail_after(30):
            await node.listeners.drain.finished.wait()


async def test_the_option_is_the_timeout_unless_the_request_has_one(tmp_path: Path) -> None:
    async with inside(tmp_path, drain_timeout_ns=200_000_000) as node:
        await with_messages(node, b"x")
        await begin(node)
        with anyio.fail_after(30):
            await node.listeners.drain.finished.wait()


@pytest.mark.parametrize("timeout", ["", "5", "-1s", "soon", "1h1"])
async def test_refused_timeouts(tmp_path: Path, timeout: str) -> None:
    async with inside(tmp_path) as node:
        answer = await node.api.post(f"/drain?timeout={timeout}")
        assert (answer.status, answer.body) == (400, b'{"message":"INVALID_TIMEOUT"}')
        assert "drain" not in await node.api.stats()
        assert (await node.api.post("/pub?topic=t", b"x")).status == 200


async def test_lookupd_names_it_no_more(tmp_path: Path) -> None:
    async with running_lookupd() as lookupd:
        options = {"nsqlookupd_tcp_addresses": (lookupd.address,), "broadcast_address": "127.0.0.1"}
        async with inside(tmp_path, **options) as node:
            await with_messages(node, b"x")

            async def found() -> bool:
                return bool((await lookupd.get("/lookup?topic=t"))["producers"])

            await eventually(found)
            await begin(node)

            async def gone() -> bool:
                return not (await lookupd.get("/nodes"))["producers"]

            await eventually(gone)
            assert (await lookupd.get("/lookup?topic=t"))["producers"] == []
            answer = await http(
                node.api.address,
                "PUT /config/nsqlookupd_tcp_addresses",
                b'["%s"]' % lookupd.address.encode(),
                headers={"Content-Length": str(len(lookupd.address) + 4)},
            )
            assert answer.status == 200  # and changes nothing for a node that leaves
            await anyio.sleep(0.1)
            assert await gone()
