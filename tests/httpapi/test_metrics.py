"""GET /metrics of a whole node, on real files and sockets."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from unittest.mock import MagicMock

import anyio
import pytest

from pynsqd.httpapi.metrics import METRICS, MetricsApi
from pynsqd.runtime.version import product_version, python_version
from tests.httpapi.running import RunningNode
from tests.support.failing_files import FailingFiles
from tests.support.lookupds import Lookupd, running_lookupd
from tests.support.nodes import V2, Inside, eventually, inside
from tests.support.prometheus import scrape
from tests.support.wire import ERROR

T = {"topic": "t"}
C = {"topic": "t", "channel": "c"}


def node_of(folder: Path, lookupd: Lookupd) -> AbstractAsyncContextManager[Inside]:
    return inside(folder, nsqlookupd_tcp_addresses=(lookupd.address,), broadcast_address="127.0.0.1")


async def test_all_that_is_named_is_there_and_nothing_else(tmp_path: Path) -> None:
    async with running_lookupd() as lookupd, node_of(tmp_path, lookupd) as node:
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        seen = await scrape(node.api.address)
        assert seen.names == {sample for metric in METRICS for sample in metric.samples}
        assert seen("pynsqd_build_info", version=product_version(), nsqd_version="1.3.0", python=python_version()) == 1

        async def connected() -> bool:
            return (await scrape(node.api.address))("pynsqd_lookupd_connected", lookupd=lookupd.address) == 1

        await eventually(connected)


async def test_the_life_of_messages(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        address = node.api.address
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        for _ in range(4):
            assert (await node.api.post("/pub?topic=t", b"four")).status == 200
        assert (await node.api.post("/pub?topic=t&defer=60000", b"x")).status == 200
        seen = await scrape(address)
        assert seen("pynsqd_topic_messages_total", **T) == 5
        assert seen("pynsqd_topic_message_bytes_total", **T) == 17
        assert seen("pynsqd_channel_depth", **C) == 4
        assert seen("pynsqd_channel_deferred", **C) == 1
        assert seen("pynsqd_log_append_seconds_count") == 1
        assert 0 < seen("pynsqd_log_append_seconds_sum") < 5
        assert seen("pynsqd_topic_log_bytes", **T) > 4 * (34 + 4)

        client = await V2.consumer(node.tcp, 4, msg_timeout=3000)
        one, two, *_ = await client.messages(4)
        await client.send(b"FIN %s\nREQ %s 30000\n" % (one.id, two.id))

        async def given_back() -> bool:
            seen = await scrape(address)
            return seen("pynsqd_channel_finished_total", **C) == 1 and seen("pynsqd_channel_in_flight", **C) == 2

        await eventually(given_back)
        seen = await scrape(address)
        assert seen("pynsqd_channel_requeued_total", **C) == 1
        assert seen("pynsqd_channel_deliveries_total", **C) == 4
        assert seen("pynsqd_channel_deferred", **C) == 2
        assert seen("pynsqd_channel_consumers", **C) == 1
        assert seen("pynsqd_connections", protocol="tcp") == 1
        await client.send(b"RDY 0\n")

        async def timed_out() -> bool:
            return (await scrape(address))("pynsqd_channel_timed_out_total", **C) == 2

        await eventually(timed_out)
        await client.close()

        async def gone() -> bool:
            return (await scrape(address))("pynsqd_connections", protocol="tcp") == 0

        await eventually(gone)
        seen = await scrape(address)  # what a consumer did stays counted when it has left
        assert seen("pynsqd_channel_finished_total", **C) == 1
        assert seen("pynsqd_channel_deliveries_total", **C) == 4
        assert seen("pynsqd_connections_opened_total", protocol="tcp") == 1
        assert seen("pynsqd_connections_opened_total", protocol="http") > 5
        assert seen("pynsqd_connections", protocol="http") == 1


async def test_connections_that_are_turned_away(tmp_path: Path) -> None:
    async with inside(tmp_path, max_connections=1) as node:
        async with await V2.open(node.tcp), await V2.open(node.tcp) as second:
            assert (await second.frame()).type == ERROR
        seen = await scrape(node.api.address)
        assert seen("pynsqd_connections_refused_total", protocol="tcp") == 1
        assert seen("pynsqd_connections_refused_total", protocol="http") == 0


async def test_pause_and_what_waits_on_the_topic(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        await node.api.do("/topic/pause?topic=t", "/channel/pause?topic=t&channel=c")
        assert (await node.api.post("/pub?topic=t", b"x")).status == 200
        seen = await scrape(node.api.address)
        assert (seen("pynsqd_topic_paused", **T), seen("pynsqd_channel_paused", **C)) == (1, 1)
        assert (seen("pynsqd_topic_depth", **T), seen("pynsqd_channel_depth", **C)) == (1, 0)
        assert seen("pynsqd_topic_oldest_waiting_age_seconds", **T) > 0
        assert seen("pynsqd_channel_oldest_waiting_age_seconds", **C) == 0


@pytest.mark.parametrize("where", ["memory", "disk", "returned", "ephemeral"])
async def test_the_age_of_what_waits(tmp_path: Path, where: str) -> None:
    """It is that of the oldest message wherever it waits: in memory, in the log only, after it came back."""
    topic = "t#ephemeral" if where == "ephemeral" else "t"
    options = {"mem_queue_bytes": 1} if where == "disk" else {}
    async with inside(tmp_path, **options) as node:
        name = topic.replace("#", "%23")
        await node.api.do(f"/topic/create?topic={name}", f"/channel/create?topic={name}&channel=c")
        began = anyio.current_time()
        for body in (b"a", b"b"):
            assert (await node.api.post(f"/pub?topic={name}", body)).status == 200
            await anyio.sleep(0.05)
        if where == "returned":
            client = await V2.consumer(node.tcp, 2)
            _, two = await client.messages(2)
            await client.send(b"FIN %s\n" % two.id)
            await client.close()
        labels = {"topic": topic, "channel": "c"}

        async def age() -> float:
            return (await scrape(node.api.address))("pynsqd_channel_oldest_waiting_age_seconds", **labels)

        first = await eventually(age)
        assert 0.1 <= first <= anyio.current_time() - began + 0.1


async def test_a_topic_that_was_there_before_a_restart(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        await node.api.post("/pub?topic=t", b"x")
    async with inside(tmp_path) as node:
        seen = await scrape(node.api.address)
        assert seen("pynsqd_topic_depth", **T) == 1
        assert 0 < seen("pynsqd_topic_oldest_waiting_age_seconds", **T) < 60


async def test_refusals_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with inside(tmp_path) as node:
        await node.api.do("/topic/create?topic=t")
        assert (await scrape(node.api.address))("pynsqd_storage_healthy") == 1
        FailingFiles(monkeypatch).full_after(0)
        assert (await node.api.post("/pub?topic=t", b"x")).status == 503
        seen = await scrape(node.api.address)
        assert (seen("pynsqd_storage_healthy"), seen("pynsqd_publishes_refused_total")) == (0, 1)
        monkeypatch.undo()


async def test_every_eighth_append_is_timed(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        for _ in range(17):
            assert (await node.api.post("/pub?topic=t", b"x")).status == 200
        assert (await scrape(node.api.address))("pynsqd_log_append_seconds_count") == 3


async def test_fsyncs_are_timed(tmp_path: Path) -> None:
    async with inside(tmp_path, durability="fsync") as node:
        await node.api.post("/pub?topic=t", b"x")
        assert (await scrape(node.api.address))("pynsqd_log_fsync_seconds_count") == 1


async def test_the_loop_is_watched(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:

        async def watched() -> float:
            return (await scrape(node.api.address))("pynsqd_event_loop_lag_seconds_count")

        await eventually(watched)


async def test_many_scrapes_and_deletions_at_once(tmp_path: Path) -> None:
    """A scrape lets the loop turn in between, so topics can go while it looks at them."""
    async with inside(tmp_path) as node, anyio.create_task_group() as tasks:
        names = [f"t{number}" for number in range(300)]
        await node.api.do(*[f"/topic/create?topic={name}" for name in names])
        for _ in range(5):
            tasks.start_soon(scrape, node.api.address)
        await node.api.do(*[f"/topic/delete?topic={name}" for name in names])


async def test_a_large_scrape_lets_the_loop_turn(node: RunningNode) -> None:
    for number in range(500):
        node.broker.topic(f"t{number}").channel("c")
    scraping = asyncio.create_task(MetricsApi(node.node).metrics(MagicMock()))
    turns = 0
    while not scraping.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10
    assert scraping.result().body.count(b"pynsqd_channel_depth{") == 500
