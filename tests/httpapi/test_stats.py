"""httpapi/stats: both layouts, from snapshots and from a node with clients (PROTOCOL 2.5)."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pynsqd.core.stats import BrokerStats, ChannelStats, ClientStats, Latency, TopicStats
from pynsqd.httpapi.stats import as_json, as_text
from pynsqd.net.connection import Connection
from pynsqd.net.door import Door
from pynsqd.runtime.memory import memory_figures
from tests.httpapi.running import RunningNode
from tests.support.wire import WireClient, command

SECOND = 1_000_000_000
NONE = Latency(0, None)


def client(**changed: Any) -> ClientStats:
    fields: dict[str, Any] = {
        "client_id": "id",
        "hostname": "host",
        "version": "V2",
        "remote_address": "1.2.3.4:5678",
        "state": 3,
        "ready_count": 1,
        "in_flight_count": 2,
        "message_count": 3,
        "finish_count": 4,
        "requeue_count": 5,
        "connect_ts": 100,
        "sample_rate": 0,
        "deflate": False,
        "snappy": False,
        "user_agent": "agent/1 <&>",
        "authed": False,
        "auth_identity": "",
        "auth_identity_url": "",
        "pub_counts": (),
        "tls": False,
        "tls_cipher_suite": "",
        "tls_version": "",
        "tls_negotiated_protocol": "",
        "tls_negotiated_protocol_is_mutual": False,
    }
    return ClientStats(**fields | changed)


def channel(name: str, clients: tuple[ClientStats, ...] | None, *, paused: bool, latency: Latency) -> ChannelStats:
    return ChannelStats(
        channel_name=name,
        depth=1,
        backend_depth=2,
        in_flight_count=3,
        deferred_count=4,
        message_count=5,
        requeue_count=6,
        timeout_count=7,
        client_count=8,
        clients=clients,
        paused=paused,
        e2e_processing_latency=latency,
    )


def topic(name: str, *channels: ChannelStats, paused: bool = False, latency: Latency = NONE) -> TopicStats:
    return TopicStats(
        topic_name=name,
        channels=channels,
        depth=10,
        backend_depth=11,
        message_count=12,
        message_bytes=13,
        paused=paused,
        e2e_processing_latency=latency,
    )


LATENCY = Latency(9, ((1.0, 1_234_567_890.0), (0.99, 1_500_000.0), (0.5, 1_500.0), (0.1, 999.0)))
POPULATED = BrokerStats(
    (
        topic(
            "t",
            channel("c", (client(), client(pub_counts=(("t", 5), ("u", 6)))), paused=True, latency=LATENCY),
            channel("d", (), paused=False, latency=NONE),
            paused=True,
            latency=LATENCY,
        ),
        topic("u"),
    ),
    (client(pub_counts=(("t", 5),), remote_address="@"),),
)


def test_text() -> None:
    text = "".join(as_text(POPULATED, "NOK - disk full", 100 * SECOND, 162 * SECOND + 500_000_000, {"a": 1, "b": 22}))
    head, _, rest = text.partition("uptime ")
    assert re.fullmatch(r"nsqd v1\.3\.0 \(built w/python[0-9.]+\)\nstart_time 19\S+:40(Z|[+-]\d\d:\d\d)\n", head)
    assert rest.replace("\t", "<tab>").splitlines() == [
        "1m2.5s",
        "",
        "Health: NOK - disk full",
        "",
        "Memory:",
        "   a                        <tab>1",
        "   b                        <tab>22",
        "",
        "Topics:",
        "*P [t              ] depth: 10    be-depth: 11    msgs: 12       e2e%: 1.2s, 1.5ms, 1.5us, 999.0ns",
        "   *P [c                        ] depth: 1     be-depth: 2     inflt: 3    def: 4    re-q: 6     "
        "timeout: 7     msgs: 5        e2e%: 1.2s, 1.5ms, 1.5us, 999.0ns",
        "        [V2 host:5678 agent/1 <&>] state: 3 inflt: 2    rdy: 1    fin: 4        re-q: 5        "
        "msgs: 3        connected: 1m2s",
        "        [V2 host:5678 agent/1 <&>] msgs: 11       topics: t=5,u=6 connected: 1m2s",
        "      [d                        ] depth: 1     be-depth: 2     inflt: 3    def: 4    re-q: 6     "
        "timeout: 7     msgs: 5        e2e%: ",
        "",
        "   [u              ] depth: 10    be-depth: 11    msgs: 12       e2e%: ",
        "",
        "Producers:",
        "   [V2 host: agent/1 <&>    ] msgs: 5        topics: t=5 connected: 1m2s",
    ]
    assert text.endswith("\n")


@pytest.mark.parametrize("topics", [(), None])
def test_empty_text(topics: tuple[TopicStats, ...] | None) -> None:
    text = "".join(as_text(BrokerStats(topics, None), "OK", 0, 0, None))
    assert text.split("uptime ")[1] == "0s\n\nHealth: OK\n\nTopics: None\n\nProducers: None\n"


def test_json_of_a_client_leaves_out_what_is_not_set() -> None:
    shown = as_json(BrokerStats((), (client(),)), "OK", 0, None)["producers"][0]
    assert "pub_counts" not in shown
    assert "authed" not in shown
    assert (shown["tls"], shown["tls_version"], shown["sample_rate"]) == (False, "", 0)
    full = client(authed=True, auth_identity="me", auth_identity_url="u", pub_counts=(("t", 5), ("u", 6)))
    shown = as_json(BrokerStats((), (full,)), "OK", 0, None)["producers"][0]
    names = list(shown)
    assert names[names.index("user_agent") + 1 : names.index("tls")] == [
        "authed",
        "auth_identity",
        "auth_identity_url",
        "pub_counts",
    ]
    assert shown["pub_counts"] == [{"topic": "t", "count": 5}, {"topic": "u", "count": 6}]


def test_json_latency() -> None:
    shown = as_json(POPULATED, "OK", 0, None)["topics"][0]["e2e_processing_latency"]
    assert shown["count"] == 9
    assert shown["percentiles"][0] == {"quantile": 1, "value": 1_234_567_890}
    assert shown["percentiles"][1] == {"quantile": 0.99, "value": 1_500_000}
    assert "." not in json.dumps(shown["percentiles"][0])


async def get(node: RunningNode, query: str) -> str:
    answer = await node.ask(f"GET /stats?{query}")
    assert answer.status == 200
    assert answer.headers["content-type"] == (
        "application/json; charset=utf-8" if "format=json" in query else "text/plain; charset=utf-8"
    )
    assert answer.headers["x-nsq-content-type"] == "nsq; version=1.0"
    return answer.body.decode()


async def test_of_an_empty_node(node: RunningNode) -> None:
    start = node.node.started_ns // SECOND
    assert abs(time.time() - start) < 60
    text = await get(node, "format=json&include_mem=false")
    assert text == f'{{"version":"1.3.0","health":"OK","start_time":{start},"topics":[],"producers":null}}'
    shown = json.loads(await get(node, "format=json"))
    assert list(shown) == ["version", "health", "start_time", "topics", "memory", "producers"]
    assert list(shown["memory"]) == list(memory_figures())
    assert "Memory:" in await get(node, "")
    assert "Memory:" not in await get(node, "include_mem=0")
    assert "Memory:" in await get(node, "include_mem=no&format=JSON")
    assert (await node.ask("GET /stats?format=json;")).status == 400


@asynccontextmanager
async def tcp(node: RunningNode) -> AsyncIterator[WireClient]:
    """Connect to a V2 listener in front of the node's broker."""
    turn = node.node.turn
    door = Door("TCP", 0, b"", lambda *_, **__: None)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(turn, door), "127.0.0.1", 0)
    try:
        async with await WireClient.open(server.sockets[0].getsockname()) as connected:
            yield connected
    finally:
        server.close()


async def test_of_a_node_with_clients(node: RunningNode) -> None:
    async with tcp(node) as consumer, tcp(node) as producer:
        await consumer.send(command(b"SUB t c"))
        assert (await consumer.frame()).payload == b"OK"
        await producer.send(command(b"PUB t", b"hello"))
        assert (await producer.frame()).payload == b"OK"
        shown = json.loads(await get(node, "format=json"))
        (shown_topic,) = shown["topics"]
        (shown_channel,) = shown_topic["channels"]
        assert list(shown_topic) == [
            *("topic_name", "channels", "depth", "backend_depth", "message_count", "message_bytes", "paused"),
            "e2e_processing_latency",
        ]
        assert (shown_topic["message_count"], shown_topic["message_bytes"]) == (1, 5)
        assert (shown_channel["depth"], shown_channel["client_count"]) == (1, 1)
        (shown_client,) = shown_channel["clients"]
        assert (shown_client["state"], shown_client["version"]) == (3, "V2")
        (shown_producer,) = shown["producers"]
        assert shown_producer["pub_counts"] == [{"topic": "t", "count": 1}]
        text = await get(node, "")
        assert "state: 3 inflt: 0" in text
        assert "topics: t=1 connected: " in text

        shown = json.loads(await get(node, "format=json&include_clients=false"))
        assert shown["producers"] is None
        assert shown["topics"][0]["channels"][0]["clients"] is None
        assert shown["topics"][0]["channels"][0]["client_count"] == 1
        assert "Producers: None" in await get(node, "include_clients=0")

        shown = json.loads(await get(node, "format=json&topic=nope"))
        assert (shown["topics"], shown["producers"]) == (None, None)
        assert json.loads(await get(node, "format=json&channel=nope"))["topics"] == []
        assert json.loads(await get(node, "format=json&topic=t&channel=c"))["topics"][0]["channels"]
