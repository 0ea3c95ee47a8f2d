"""Publishers that go to another node when one refuses, and consumers that come back: what is to notice no restart."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from tests.support.nodes import OK, V2, eventually
from tests.support.wire import Address, http, sized

CONNECTION_ERRORS = (
    *(OSError, AssertionError, TimeoutError),
    *(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream),
)


class Load:
    """Publishers of two nodes, or of what stands before them, and what became of their messages.

    ``https`` is where a connection per request goes to, ``tcps`` where connections that are kept do.
    """

    def __init__(self, https: list[Address], tcps: list[Address]) -> None:
        self.https = https
        self.tcps = tcps
        self.accepted: set[bytes] = set()
        self.consumed: Counter[bytes] = Counter()
        self.errors: list[str] = []  # what a publisher's caller sees
        self.tries: Counter[str] = Counter()  # how each try ended
        self.stopped = False

    async def go_on(self, publishes: int) -> None:
        """Wait until so many more have been accepted."""
        wanted = len(self.accepted) + publishes
        await eventually(lambda: len(self.accepted) >= wanted, "publishes are accepted")

    async def publish_http(self, name: str) -> None:
        """As PHP does: a connection per request, the next address on 503 or a connection that fails."""
        number = 0
        while not self.stopped:
            number += 1
            body = f"{name} {number}".encode()
            for turn in range(len(self.https)):
                ended = await self._post(self.https[(number + turn) % len(self.https)], body)
                self.tries[ended] += 1
                if ended == "200":
                    self.accepted.add(body)
                    break
            else:
                self.errors.append(f"{body!r}: {ended}")
            await anyio.sleep(0.002)

    async def _post(self, address: Address, body: bytes) -> str:
        try:
            headers = {"Content-Length": str(len(body))}
            return str((await http(address, "POST /pub?topic=t", body, headers=headers)).status)
        except OSError:
            return "refused"
        except CONNECTION_ERRORS:  # it ended while it was asked
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
async def under_load(load: Load, *, tcp: bool = True) -> AsyncIterator[None]:
    """Have publishers, over ``tcp`` too, and consumers; at the end everything that was accepted is consumed."""
    async with anyio.create_task_group() as consumers:
        for address in load.tcps:
            consumers.start_soon(load.consume, address)
            consumers.start_soon(load.consume, address)
        async with anyio.create_task_group() as publishers:
            for number in range(3):
                publishers.start_soon(load.publish_http, f"http{number}")
                if tcp:
                    publishers.start_soon(load.publish_tcp, f"tcp{number}", number % 2)
            yield
            load.stopped = True
        await eventually(lambda: load.accepted <= load.consumed.keys(), "all that was accepted is consumed")
        consumers.cancel_scope.cancel()
