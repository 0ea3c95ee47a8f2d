"""httpapi/debug: what stands in the place of Go's profiles."""

import signal
import sys

import anyio.lowlevel
import pytest

from tests.httpapi.client import HttpClient, request
from tests.httpapi.running import RunningNode, until


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("", "heap"),
        ("block", "MainThread"),
        ("cmdline", sys.argv[-1]),
        ("goroutine", "in stacks\n"),
        ("heap", "heap_in_use_bytes"),
        ("symbol", "num_symbols: 1\n"),
        ("threadcreate", "MainThread"),
    ],
)
async def test_pages(node: RunningNode, path: str, shown: str) -> None:
    answer = await node.ask(f"GET /debug/pprof/{path}")
    assert answer.status == 200
    assert shown in answer.body.decode()
    assert answer.headers["content-type"] == ("text/plain; charset=utf-8" if path else "text/html; charset=utf-8")
    assert "x-nsq-content-type" not in answer.headers


async def test_symbol_may_be_posted(node: RunningNode) -> None:
    answer = await node.ask("POST /debug/pprof/symbol", b"0x1+0x2")
    assert (answer.status, answer.body) == (200, b"num_symbols: 1\n")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def burn() -> None:
    while True:
        sum(range(10_000))
        await anyio.lowlevel.checkpoint()


async def test_profile(node: RunningNode) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(burn)
        answer = await node.ask("GET /debug/pprof/profile?seconds=0.5")
        tasks.cancel_scope.cancel()
    assert answer.status == 200
    stacks = [line.rpartition(" ") for line in answer.body.decode().splitlines()]
    hits = [int(count) for stack, _, count in stacks if stack.endswith("test_debug.burn")]
    assert sum(hits) > 5
    assert any(stack.index("pytest") < stack.index("asyncio") for stack, _, _ in stacks)


@pytest.mark.parametrize("seconds", ["x", "0", "-1", "301", "nan", ""])
async def test_bad_profiles(node: RunningNode, seconds: str) -> None:
    assert (await node.ask(f"GET /debug/pprof/profile?seconds={seconds}")).status == 400


async def test_one_profile_at_a_time(node: RunningNode) -> None:
    async with await HttpClient.open(node.port) as first:
        await first.send(request("GET /debug/pprof/profile?seconds=0.2"))
        await until(lambda: signal.getitimer(signal.ITIMER_PROF)[0])
        assert (await node.ask("GET /debug/pprof/profile?seconds=0.1")).status == 500
        assert (await first.answer()).status == 200
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    signal.raise_signal(signal.SIGPROF)  # a late one does no harm


async def test_block_rate(node: RunningNode) -> None:
    assert (await node.ask("PUT /debug/setblockrate?rate=-5")).status == 200
    for rate in ("x", "", "1.5"):
        answer = await node.ask(f"PUT /debug/setblockrate?rate={rate}")
        assert answer.status == 400
        assert answer.body.decode() == f'invalid block rate : strconv.Atoi: parsing "{rate}": invalid syntax'


async def test_free_memory(node: RunningNode) -> None:
    assert (await node.ask("POST /debug/freememory")).status == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [("GET /debug", 404), ("GET /debug/pprof/mutex", 404), ("GET /debug/pprof/trace", 404), ("GET /debug/pprof", 301)],
)
async def test_what_nsqd_does_not_have_either(node: RunningNode, line: str, status: int) -> None:
    answer = await node.ask(line)
    assert answer.status == status
    assert answer.headers.get("location") == ("/debug/pprof/" if status == 301 else None)
