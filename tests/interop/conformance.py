"""The scenarios of README.md, for the Python clients; a driver supplies a `Client` and calls `run`."""

import asyncio
import json
import os
import sys
import time
import traceback
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

CHANNEL = "conformance"
SECRET = os.environ.get("AUTH_SECRET")
MSG_TIMEOUT_MS = 1_000
HEARTBEAT_MS = 1_000
MAX_IN_FLIGHT = 10
DELAY_MS = 500
TOUCHES = 3
TOUCH_EVERY_MS = 400
ERROR_ALONE_MS = 200

# What stands between client and node: "compression", and "root", "cert" and "key" (files) with TLS; see README.md.
LAYERS: dict[str, str] = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}


class Delivery(Protocol):
    """One message in one delivery, in the client's own words."""

    body: str
    attempts: int

    async def finish(self) -> None: ...

    async def requeue(self, delay_ms: int) -> None: ...

    async def touch(self) -> None: ...


Handler = Callable[[Delivery], Coroutine[Any, Any, None]]


class Client(Protocol):
    """What a driver makes of its client. `publish*` return when the node answered OK and raise when it did not."""

    async def start(self, lookupd: str, node: str, topic: str, handler: Handler) -> None: ...

    async def publish(self, body: str) -> None: ...

    async def publish_many(self, bodies: list[str]) -> None: ...

    async def publish_deferred(self, body: str, delay_ms: int) -> None: ...

    async def wait_for_writer(self) -> None:
        """Returns when the client's own reconnecting has brought the publishing connection back."""

    async def stop(self) -> None: ...


def emit(what: str, body: str = "", attempts: int = 0) -> None:
    """Tell the test what happens, one JSON line each; `at_ms` is a monotonic clock of this process."""
    event = {"what": what, "body": body, "attempts": attempts, "at_ms": time.monotonic_ns() // 1_000_000}
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Scenario:
    """Publishes, step after step, and answers each delivery as its body and its attempts say."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.finished: dict[str, asyncio.Event] = {}
        self.timed_out: Delivery | None = None

    async def handle(self, delivery: Delivery) -> None:
        """The consumer's side. What a client would do with an exception is not of interest: the driver ends."""
        try:
            await self.answer(delivery)
        except Exception:
            traceback.print_exc()
            os._exit(1)

    async def answer(self, delivery: Delivery) -> None:
        """Finish it, but treat the first delivery of `requeue` and `timeout`, and `touch`, specially."""
        emit("delivered", delivery.body, delivery.attempts)
        first = delivery.attempts == 1
        if delivery.body == "requeue" and first:
            emit("requeuing", delivery.body, delivery.attempts)
            await delivery.requeue(DELAY_MS)
            return
        if delivery.body == "timeout" and first:
            self.timed_out = delivery
            return
        if delivery.body == "touch":
            for _ in range(TOUCHES):
                await asyncio.sleep(TOUCH_EVERY_MS / 1000)
                await delivery.touch()
            await asyncio.sleep(TOUCH_EVERY_MS / 1000)
        await delivery.finish()
        if self.timed_out is not None and delivery.body == "timeout":
            await self.timed_out.finish()  # too late: E_FIN_FAILED, and the connection must live on
            await asyncio.sleep(ERROR_ALONE_MS / 1000)  # ansq would leave lying what it reads together with the error
        emit("finished", delivery.body, delivery.attempts)
        self.finished[delivery.body].set()

    async def step(self, publish: Callable[[list[str]], Awaitable[None]], bodies: list[str]) -> None:
        """Publish `bodies` and wait until every one of them is finished."""
        self.finished |= {body: asyncio.Event() for body in bodies}
        for body in bodies:
            emit("publishing", body)
        await publish(bodies)
        for body in bodies:
            await self.finished[body].wait()

    async def play(self, lookupd: str, topic: str) -> None:
        client = self.client
        await client.start(lookupd, find_node(lookupd, topic), topic, self.handle)

        await self.step(self.publish_singly, [f"single-{i}" for i in range(10)])
        await self.step(client.publish_many, [f"batch-{i}" for i in range(25)])
        if LAYERS:
            await self.step(client.publish_many, [f"large-{i}" + "x" * 50_000 for i in range(3)])
            emit("connected")
            await asyncio.to_thread(sys.stdin.readline)
            await client.stop()
            return
        await self.step(lambda bodies: client.publish_deferred(bodies[0], DELAY_MS), ["deferred"])
        for body in ("requeue", "timeout", "touch"):
            await self.step(self.publish_singly, [body])

        emit("restart")
        await asyncio.to_thread(sys.stdin.readline)
        await client.wait_for_writer()
        await self.step(self.publish_singly, [f"after-{i}" for i in range(5)])
        await client.stop()

    async def publish_singly(self, bodies: list[str]) -> None:
        for body in bodies:
            await self.client.publish(body)


def find_node(lookupd: str, topic: str) -> str:
    """Ask lookupd which node has the topic; `host:port` of its TCP side."""
    with urllib.request.urlopen(f"http://{lookupd}/lookup?topic={topic}", timeout=30) as answer:
        producer = json.load(answer)["producers"][0]
    return f"{producer['broadcast_address']}:{producer['tcp_port']}"


def run(client: Client) -> None:
    """Play the scenario; arguments: lookupd's HTTP address, the topic, and the layers if there are any."""
    lookupd, topic = sys.argv[1:3]
    asyncio.run(Scenario(client).play(lookupd, topic))
