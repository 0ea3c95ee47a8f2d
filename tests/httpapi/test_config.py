"""httpapi/config: GET and PUT /config/:opt (PROTOCOL 2.6)."""

import json

import pytest

from pynsqd.options import Options
from pynsqd.runtime.kinds import LogLevel
from tests.httpapi.client import Answer
from tests.httpapi.running import RunningNode, running_node

JSON = "application/json; charset=utf-8"


def message(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["message"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("log_level", b"2"),
        ("nsqlookupd_tcp_addresses", b"[]"),
        ("id", b"0"),
        ("sync_timeout", b"2000000000"),
        ("deflate", b"true"),
        ("tls_required", b"0"),
        ("tls_min_version", b"771"),
        ("e2e_processing_latency_percentiles", b"[0.99,1]"),
        ("max_msg_size", b"1048576"),
    ],
)
async def test_json_values(option: str, value: bytes) -> None:
    async with running_node(Options(e2e_processing_latency_percentiles=(0.99, 1.0))) as node:
        answer = await node.ask(f"GET /config/{option}")
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, value, JSON)


async def test_strings_are_raw(node: RunningNode) -> None:
    answer = await node.ask("GET /config/statsd_prefix")
    host = node.node.options.broadcast_address.replace(".", "_")
    assert answer.body.decode() == f"nsq.{host}_{node.port}."
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    answer = await node.ask("GET /config/tls_cert")
    assert (answer.status, answer.body) == (200, b"")
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("option", ["node_id", "nope", "queue_scan_interval", "verbose", "version", "sync_timeout_ns"])
async def test_unknown(node: RunningNode, option: str) -> None:
    assert message(await node.ask(f"GET /config/{option}")) == (400, "INVALID_OPTION")
    assert message(await node.ask(f"PUT /config/{option}", b"5")) == (400, "INVALID_OPTION")


async def test_log_level(node: RunningNode) -> None:
    answer = await node.ask("PUT /config/log_level", b"DeBug")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"1", JSON)
    assert node.logs.level is LogLevel.DEBUG
    assert (await node.ask("GET /config/log_level")).body == b"1"
    for bad in (b"bogus", b"\xff", b"1"):
        assert message(await node.ask("PUT /config/log_level", bad)) == (400, "INVALID_VALUE")
    assert node.logs.level is LogLevel.DEBUG


async def test_lookupds(node: RunningNode) -> None:
    answer = await node.ask("PUT /config/nsqlookupd_tcp_addresses", b'["a:1", "b:2"]')
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b'["a:1","b:2"]', JSON)
    assert node.peers.addresses == ["a:1", "b:2"]
    assert node.broker.hold_new_topics
    for bad in (b"x", b"{}", b"[1]", b'"a:1"', 100_000 * b"["):
        assert message(await node.ask("PUT /config/nsqlookupd_tcp_addresses", bad)) == (400, "INVALID_VALUE")
    assert (await node.ask("GET /config/nsqlookupd_tcp_addresses")).body == b'["a:1","b:2"]'
    assert (await node.ask("PUT /config/nsqlookupd_tcp_addresses", b"null")).body == b"null"
    assert node.peers.addresses == []
    assert not node.broker.hold_new_topics


async def test_only_those_two_can_be_put(node: RunningNode) -> None:
    assert message(await node.ask("PUT /config/id", b"5")) == (400, "INVALID_OPTION")
    assert node.node.options.id == 0


async def test_sizes_are_checked_first() -> None:
    async with running_node(Options(max_msg_size=10)) as node:
        for option in ("log_level", "id", "nope"):
            assert message(await node.ask(f"PUT /config/{option}", b"")) == (413, "INVALID_VALUE")
            assert message(await node.ask(f"PUT /config/{option}", 11 * b"x")) == (413, "INVALID_VALUE")
            assert message(await node.ask(f"PUT /config/{option}", 10 * b"x"))[0] == 400
