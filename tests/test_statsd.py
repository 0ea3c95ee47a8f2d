"""statsd: names, order, packing, and datagrams on a real socket (PROTOCOL 3.11)."""

import socket
from time import monotonic_ns, time_ns
from typing import Any

import anyio
import pytest

from pynsqd import statsd
from pynsqd.core.broker import Broker
from pynsqd.core.stats import BrokerStats, ChannelStats, Latency, TopicStats
from pynsqd.options import Options
from pynsqd.statsd import broker_lines, memory_lines, pack, push_forever
from tests.httpapi.running import Logs, until
from tests.support.session_wire import FailingLogs

LATENCY = Latency(2, ((0.999, 30.7), (0.99, 20.0)))
NONE = Latency(0, None)


def channel(name: str = "c", count: int = 10, latency: Latency = NONE) -> ChannelStats:
    return ChannelStats(name, 1, 2, 3, 4, count, count + 1, count + 2, 5, None, False, latency)


def topic(*channels: ChannelStats, name: str = "t", count: int = 10, latency: Latency = NONE) -> TopicStats:
    return TopicStats(name, channels, 1, 2, count, count * 10, False, latency)


def stats(*topics: TopicStats) -> BrokerStats:
    return BrokerStats(topics, None)


def test_names_and_order() -> None:
    lines = list(broker_lines(stats(), stats(topic(channel(latency=LATENCY), latency=LATENCY))))
    assert lines == [
        "topic.t.message_count:10|c",
        "topic.t.message_bytes:100|c",
        "topic.t.depth:1|g",
        "topic.t.backend_depth:2|g",
        "topic.t.e2e_processing_latency_100:30|g",
        "topic.t.e2e_processing_latency_99:20|g",
        "topic.t.channel.c.message_count:10|c",
        "topic.t.channel.c.depth:1|g",
        "topic.t.channel.c.backend_depth:2|g",
        "topic.t.channel.c.in_flight_count:3|g",
        "topic.t.channel.c.deferred_count:4|g",
        "topic.t.channel.c.requeue_count:11|c",
        "topic.t.channel.c.timeout_count:12|c",
        "topic.t.channel.c.clients:5|g",
        "topic.t.channel.c.e2e_processing_latency_100:30|g",
        "topic.t.channel.c.e2e_processing_latency_99:20|g",
    ]


def counters(before: BrokerStats, now: BrokerStats) -> list[str]:
    return [line for line in broker_lines(before, now) if line.endswith("|c")]


def test_counters_are_differences() -> None:
    assert counters(stats(topic(channel(count=10), count=10)), stats(topic(channel(count=13), count=12))) == [
        "topic.t.message_count:2|c",
        "topic.t.message_bytes:20|c",
        "topic.t.channel.c.message_count:3|c",
        "topic.t.channel.c.requeue_count:3|c",
        "topic.t.channel.c.timeout_count:3|c",
    ]


def test_a_topic_that_was_made_again_counts_from_zero() -> None:
    assert counters(stats(topic(count=10)), stats(topic(count=4)))[0] == "topic.t.message_count:4|c"


def test_ephemeral_ones() -> None:
    now = stats(topic(channel("c#ephemeral"), channel("d")), topic(channel(), name="u#ephemeral"))
    names = {line.split(".message_count")[0] for line in broker_lines(stats(), now) if "message_count" in line}
    assert names == {
        "topic.t",
        "topic.t.channel.c#ephemeral",
        "topic.t.channel.d",
        "topic.u#ephemeral",
        "topic.u#ephemeral.channel.c",
    }
    kept = broker_lines(stats(), now, exclude_ephemeral=True)
    assert {line.split(".message_count")[0] for line in kept if "message_count" in line} == {
        "topic.t",
        "topic.t.channel.d",
    }


def test_memory() -> None:
    assert list(memory_lines({}, {"heap_objects": 5, "gc_total_runs": 7})) == [
        "mem.heap_objects:5|g",
        "mem.gc_runs:7|c",
    ]
    assert list(memory_lines({"gc_total_runs": 7}, {"gc_total_runs": 9})) == ["mem.gc_runs:2|c"]


def test_packing() -> None:
    assert pack("p.", [], 10) == []
    assert pack("p.", ["a:1|g", "b:1|g", "c:1|g"], 16) == [b"p.a:1|g\np.b:1|g\n", b"p.c:1|g\n"]
    assert pack("", ["a", 20 * "x", "b"], 10) == [b"a\n", 20 * b"x" + b"\n", b"b\n"]


@pytest.fixture
def listener() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving:
        receiving.bind(("127.0.0.1", 0))
        receiving.setblocking(False)
        yield receiving


async def datagram(receiving: socket.socket) -> bytes:
    with anyio.fail_after(30):
        await anyio.wait_readable(receiving)
        return receiving.recv(65536)


def node(**options: Any) -> tuple[Broker, Options]:
    given = Options(statsd_mem_stats=False, **options)
    broker = Broker(given, FailingLogs(), monotonic_ns(), time_ns())
    broker.topic("t")
    return broker, given


class Clock:
    """Time that passes only while ``push_forever`` sleeps; each push waits for ``may_push``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.slept_s: list[float] = []
        self.may_push = anyio.Semaphore(0)
        self.waited = 0  # times for a push
        self.create_connected_udp_socket = anyio.create_connected_udp_socket
        monkeypatch.setattr(statsd, "anyio", self)

    def current_time(self) -> float:
        return self.now_s

    async def sleep_until(self, due_s: float) -> None:
        self.waited += 1
        await self.may_push.acquire()
        await self.sleep(due_s - self.now_s)

    async def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        self.now_s += delay_s
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_pushes(listener: socket.socket, clock: Clock) -> None:
    """Two pushes: the second has the differences, and comes an interval after the first."""
    port = listener.getsockname()[1]
    broker, options = node(statsd_address=f"127.0.0.1:{port}", statsd_interval_ns=1_300_000_000)
    broker.topics["t"].message_count = 5
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(push_forever, broker, options, "nsq.h.", Logs().logger)
        clock.may_push.release()
        first = (await datagram(listener)).decode().splitlines()
        assert first[0] == "nsq.h.topic.t.message_count:5|c"
        assert first[-1] == "nsq.h.topic.t.backend_depth:0|g"
        broker.topics["t"].message_count = 7
        clock.may_push.release()
        assert (await datagram(listener)).startswith(b"nsq.h.topic.t.message_count:2|c\n")
        tasks.cancel_scope.cancel()
    assert clock.slept_s[:3] == pytest.approx([1.3, 0.3, 1.0])  # up to a push, in it, and up to the next


async def test_datagrams_are_spread_over_the_interval_less_a_second(listener: socket.socket, clock: Clock) -> None:
    port = listener.getsockname()[1]
    broker, options = node(
        statsd_address=f"127.0.0.1:{port}", statsd_interval_ns=1_400_000_000, statsd_udp_packet_size=40
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(push_forever, broker, options, "", Logs().logger)
        clock.may_push.release()
        for _ in range(4):
            assert len(await datagram(listener)) <= 40
        await until(lambda: clock.waited == 2)
        tasks.cancel_scope.cancel()
    assert clock.slept_s == pytest.approx([1.4, 0.1, 0.1, 0.1, 0.1])


async def test_memory_is_pushed_too(listener: socket.socket, clock: Clock) -> None:
    options = Options(statsd_address=f"127.0.0.1:{listener.getsockname()[1]}", statsd_interval_ns=1_001_000_000)
    broker = Broker(options, FailingLogs(), monotonic_ns(), time_ns())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(push_forever, broker, options, "", Logs().logger)
        clock.may_push.release()
        lines = (await datagram(listener)).decode().splitlines()
        tasks.cancel_scope.cancel()
    assert [line.split(":")[0] for line in lines] == [
        "mem.heap_objects",
        "mem.heap_idle_bytes",
        "mem.heap_in_use_bytes",
        "mem.heap_released_bytes",
        "mem.gc_pause_usec_100",
        "mem.gc_pause_usec_99",
        "mem.gc_pause_usec_95",
        "mem.next_gc_bytes",
        "mem.gc_runs",
    ]


async def test_an_address_that_cannot_be_reached_is_logged_once(clock: Clock) -> None:
    broker, options = node(statsd_address="no such host.invalid:8125", statsd_interval_ns=20_000_000)
    logs = Logs()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(push_forever, broker, options, "", logs.logger)
        for _ in range(5):
            clock.may_push.release()
        await until(lambda: clock.waited == 6)
        tasks.cancel_scope.cancel()
    assert [event["address"] for _, event in logs.lines] == ["no such host.invalid:8125"]


async def test_each_outage_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [OSError("one"), OSError("one"), None, OSError("two"), OSError("two")]

    async def send(*_: object) -> None:
        if not outcomes:
            await anyio.sleep_forever()
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(statsd, "_send", send)
    broker, options = node(statsd_address="127.0.0.1:1", statsd_interval_ns=1_000_000)
    logs = Logs()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(push_forever, broker, options, "", logs.logger)
        await until(lambda: not outcomes)
        tasks.cancel_scope.cancel()
    assert [event["error"] for _, event in logs.lines] == ["one", "two"]
