"""pynsq plays the scenarios of README.md."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import conformance
import nsq
from conformance import HEARTBEAT_MS, LAYERS, MAX_IN_FLIGHT, MSG_TIMEOUT_MS, Handler


class Delivery:
    """An `nsq.Message`."""

    def __init__(self, message: nsq.Message) -> None:
        self.message = message
        self.body = message.body.decode()
        self.attempts = message.attempts

    async def finish(self) -> None:
        self.message.finish()

    async def requeue(self, delay_ms: int) -> None:
        self.message.requeue(time_ms=delay_ms, backoff=False)

    async def touch(self) -> None:
        self.message.touch()


def layers() -> dict[str, Any]:
    """Return what `LAYERS` asks for in pynsq's words."""
    asked: dict[str, Any] = {name: True for name in ("snappy", "deflate") if name == LAYERS.get("compression")}
    if "root" in LAYERS:
        files = {"ca_certs": LAYERS["root"], "certfile": LAYERS["cert"], "keyfile": LAYERS["key"]}
        asked |= {"tls_v1": True, "tls_options": files | {"cert_reqs": ssl.CERT_REQUIRED}}
    return asked


class Pynsq:
    """A `nsq.Reader` that finds the node through lookupd and a `nsq.Writer` on the node."""

    async def start(self, lookupd: str, node: str, topic: str, handler: Handler) -> None:
        self.topic = topic
        self.handling: set[asyncio.Task[None]] = set()

        def on_message(message: nsq.Message) -> None:
            message.enable_async()
            task = asyncio.ensure_future(handler(Delivery(message)))
            self.handling.add(task)
            task.add_done_callback(self.handling.discard)

        self.reader = nsq.Reader(
            message_handler=on_message,
            lookupd_http_addresses=[lookupd],
            lookupd_poll_interval=1,
            topic=topic,
            channel=conformance.CHANNEL,
            max_in_flight=MAX_IN_FLIGHT,
            msg_timeout=MSG_TIMEOUT_MS / 1000,
            heartbeat_interval=HEARTBEAT_MS // 1000,
            auth_secret=conformance.SECRET,
            **layers(),
        )
        self.writer = nsq.Writer(
            [node],
            reconnect_interval=0.2,
            heartbeat_interval=HEARTBEAT_MS // 1000,
            auth_secret=conformance.SECRET,
            **layers(),
        )
        await self.wait_for_writer()

    async def publish(self, body: str) -> None:
        await self.answered(lambda done: self.writer.pub(self.topic, body.encode(), done))

    async def publish_many(self, bodies: list[str]) -> None:
        await self.answered(lambda done: self.writer.mpub(self.topic, [body.encode() for body in bodies], done))

    async def publish_deferred(self, body: str, delay_ms: int) -> None:
        await self.answered(lambda done: self.writer.dpub(self.topic, delay_ms, body.encode(), done))

    async def answered(self, send: Callable[[Callable[[object, object], None]], object]) -> None:
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        send(lambda _connection, data: answer.set_result(data))
        if await answer != b"OK":
            raise RuntimeError(f"not OK: {answer.result()!r}")

    async def wait_for_writer(self) -> None:
        while not self.writer.conns:
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self.reader.close()


conformance.run(Pynsq())
