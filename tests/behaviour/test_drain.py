"""Draining real processes: by POST, by SIGTERM, and a rolling restart of two nodes under load."""

import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread

from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api, eventually
from tests.support.wire import Address, http, sized

CONNECTION_ERRORS = (OSError, AssertionError, TimeoutError, anyio.BrokenResourceError, anyio.ClosedResourceError)


async def fill(node: Daemon, *bodies: bytes) -> Api:
    api = Api(node.http)
    await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
    for body in bodies:
        assert (await api.post("/pub?topic=t", body)).status == 200
    return api


async def consume(node: Daemon, count: int) -> list[bytes]:
    client = await V2.consumer(node.tcp, 1)
    bodies = []
    for _ in range(count):
        message = await client.message()
        bodies.append(message.body)
        await client.finish([message])
    await client.close()
    return bodies


async def test_post_drain_ends_the_process_once_it_is_empty(tmp_path: Path) -> None:
    with Daemon("nsqd", data_path=tmp_path) as node:
        api = await fill(node, b"a", b"b")
        assert (await api.post("/drain")).status == 200
        node.await_log("draining")
        assert node.running
        assert await consume(node, 2) == [b"a", b"b"]
        assert node.wait() == 0
        assert "drained" in node.stderr


async def test_sigterm_drains_as_long_as_the_option_says(tmp_path: Path) -> None:
    with Daemon("nsqd", "--drain-timeout=20s", data_path=tmp_path) as node:
        await fill(node, b"a")
        node.signal(signal.SIGTERM)
        node.await_log("draining")
        assert await consume(node, 1) == [b"a"]
        assert node.wait() == 0


async def test_what_is_not_drained_in_time_is_there_after_the_start(tmp_path: Path) -> None:
    with Daemon("nsqd", "--drain-timeout=300ms", data_path=tmp_path) as node:
        await fill(node, b"a")
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began >= 0.3
        assert "not drained in time" in node.stderr
        node.start()
        assert await consume(node, 1) == [b"a"]


async def test_a_second_sigterm_ends_the_drain(tmp_path: Path) -> None:
    with Daemon("nsqd", "--drain-timeout=1h", data_path=tmp_path) as node:
        await fill(node, b"a")
        node.signal(signal.SIGTERM)
        node.await_log("draining")
        assert node.stop() == 0
        assert "drained" not in node.stderr


async def test_sigterm_without_the_option_ends_a_drain_by_http(tmp_path: Path) -> None:
    with Daemon("nsqd", data_path=tmp_path) as node:
        api = await fill(node, b"a")
        assert (await api.post("/drain")).status == 200
        assert node.stop() == 0


# ---- a rolling restart


class Load:
    """Publishers that know two nodes, a connection per request or one that they keep, and what became of it."""

    def __init__(self, https: list[Address], tcps: list[Address]) -> None:
        self.https = https
        self.tcps = tcps
        self.accepted: set[bytes] = set()
        self.consumed: Counter[bytes] = Counter()
        self.errors: list[str] = []  # what a publisher's caller sees
        self.tries: Counter[str] = Counter()  # how each try ended
        self.slowest_s = 0.0
        self.stopped = False

    async def publish_http(self, name: str) -> None:
        """As PHP does: a connection per request, the other node on 503 or a connection that fails."""
        number = 0
        while not self.stopped:
            number += 1
            body = f"{name} {number}".encode()
            began = time.monotonic()
            for turn in range(2):
                ended = await self._post(self.https[(number + turn) % 2], body)
                self.tries[ended] += 1
                if ended == "200":
                    self.accepted.add(body)
                    break
            else:
                self.errors.append(f"{body!r}: {ended}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await anyio.sleep(0.002)

    async def _post(self, address: Address, body: bytes) -> str:
        try:
            headers = {"Content-Length": str(len(body))}
            return str((await http(address, "POST /pub?topic=t", body, headers=headers)).status)
        except OSError:
            return "refused"
        except (*CONNECTION_ERRORS, ValueError, IndexError):  # it ended while it was asked
            return "cut"

    async def publish_tcp(self, name: str, at: int) -> None:
        """As a client library does: a connection that is kept, the other node on E_PUB_FAILED."""
        number = 0
        client: V2 | None = None
        while not self.stopped:
            number += 1
            body = f"{name} {number}".encode()
            for _ in range(3):  # the connection that is kept may have ended, then either node
                try:
                    client = client or await V2.open(self.tcps[at])
                    answer = await client.ask(b"PUB t\n" + sized(body))
                    ended = answer.payload.decode().split()[0]
                except OSError:
                    ended = "refused"
                except CONNECTION_ERRORS:
                    ended = "cut"
                self.tries[ended] += 1
                if ended == "OK":
                    assert answer == OK
                    self.accepted.add(body)
                    break
                if client:
                    await client.close()
                client, at = None, 1 - at
            else:
                self.errors.append(f"{body!r}: {ended}")
            await anyio.sleep(0.002)
        if client:
            await client.close()

    async def consume(self, address: Address) -> None:
        """Stay subscribed, and come back whenever the connection ends."""
        while True:
            with contextlib.suppress(*CONNECTION_ERRORS):
                async with await V2.open(address) as client:
                    assert await client.ask(b"SUB t c\n") == OK
                    await client.send(b"RDY 50\n")
                    while True:
                        message = await client.message()
                        if message.attempts == 1 and message.body.endswith(b"7"):  # so that a drain takes a while
                            await client.send(b"REQ %s 300\n" % message.id)
                            continue
                        self.consumed[message.body] += 1
                        await client.finish([message])
            await anyio.sleep(0.05)


@asynccontextmanager
async def under_load(load: Load) -> AsyncIterator[None]:
    """Have publishers and consumers; at the end everything that was accepted is consumed."""
    async with anyio.create_task_group() as consumers:
        for address in load.tcps:
            consumers.start_soon(load.consume, address)
            consumers.start_soon(load.consume, address)
        async with anyio.create_task_group() as publishers:
            for number in range(3):
                publishers.start_soon(load.publish_http, f"http{number}")
                publishers.start_soon(load.publish_tcp, f"tcp{number}", number % 2)
            yield
            load.stopped = True
        await eventually(lambda: load.accepted <= load.consumed.keys(), "all that was accepted is consumed")
        consumers.cancel_scope.cancel()


async def restart(node: Daemon) -> Daemon:
    """Stop it as a supervisor does and start it at the same addresses; returns when it is ready."""
    code = await to_thread.run_sync(node.stop)
    assert code == 0, node.stderr
    assert "drained" in node.stderr
    assert "not drained" not in node.stderr
    fixed = [f"--tcp-address={node.addresses['TCP']}", f"--http-address={node.addresses['HTTP']}"]
    again = Daemon("nsqd", *node.flags, *fixed, data_path=node.data_path)
    await to_thread.run_sync(again.start)

    async def ready() -> bool:
        return (await http(again.http, "GET /readyz")).status == 200

    await eventually(ready)
    return again


async def test_a_rolling_restart_loses_nothing_and_shows_publishers_no_error(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        nodes = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            nodes.append(stack.enter_context(Daemon("nsqd", "--drain-timeout=20s", data_path=tmp_path / name)))
            await Api(nodes[-1].http).do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        load = Load([node.http for node in nodes], [node.tcp for node in nodes])
        async with under_load(load):
            for node in nodes:
                await anyio.sleep(0.5)
                again = await restart(node)
                stack.callback(again.kill)
            await anyio.sleep(0.5)
        assert load.errors == []
        assert load.tries["503"] and load.tries["E_PUB_FAILED"]  # it was under load
        assert len(load.accepted) > 200
        twice = [body for body, count in load.consumed.items() if count > 1 and body in load.accepted]
        assert len(twice) <= load.tries["cut"], twice
