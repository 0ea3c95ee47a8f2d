"""ansq plays the conformance scenario (README.md)."""

import asyncio

import ansq
import conformance
from ansq.tcp.types import NSQMessage, TCPConnection
from ansq.typedefs import TCPResponse
from conformance import HEARTBEAT_MS, MSG_TIMEOUT_MS, Handler


class Delivery:
    """An ansq message. FIN goes by its connection: ansq's message refuses to finish what it knows to be timed out."""

    def __init__(self, message: NSQMessage, reader: ansq.tcp.reader.Reader) -> None:
        self.message = message
        self.reader = reader
        self.body = message.body.decode()
        self.attempts = message.attempts

    async def finish(self) -> None:
        await self.reader.connections[0].fin(self.message.id)

    async def requeue(self, delay_ms: int) -> None:
        await self.message.req(delay_ms)

    async def touch(self) -> None:
        await self.message.touch()


class Ansq:
    """An ansq reader that finds the node through lookupd (RDY 1, all that it offers) and a writer on the node."""

    async def start(self, lookupd: str, node: str, topic: str, handler: Handler) -> None:
        self.topic = topic
        features = ansq.ConnectionFeatures(msg_timeout=MSG_TIMEOUT_MS, heartbeat_interval=HEARTBEAT_MS)
        self.reader = await ansq.create_reader(
            topic,
            conformance.CHANNEL,
            lookupd_http_addresses=[lookupd],
            lookupd_poll_interval=200,
            connection_options=ansq.ConnectionOptions(features=features),
        )
        self.writer_heartbeat = asyncio.Event()
        self.writer = await ansq.create_writer(
            [node], ansq.ConnectionOptions(auto_reconnect=True, features=features, on_heartbeat=self.on_heartbeat)
        )
        self.consuming = asyncio.create_task(self.consume(handler))

    async def on_heartbeat(self, _connection: TCPConnection) -> None:
        self.writer_heartbeat.set()

    async def consume(self, handler: Handler) -> None:
        async with asyncio.TaskGroup() as handling:
            async for message in self.reader.messages():
                handling.create_task(handler(Delivery(message, self.reader)))

    async def publish(self, body: str) -> None:
        expect_ok(await self.writer.pub(self.topic, body))

    async def publish_many(self, bodies: list[str]) -> None:
        expect_ok(await self.writer.mpub(self.topic, *bodies))

    async def publish_deferred(self, body: str, delay_ms: int) -> None:
        expect_ok(await self.writer.dpub(self.topic, body, delay_ms))

    async def wait_for_writer(self) -> None:
        self.writer_heartbeat.clear()
        await self.writer_heartbeat.wait()
        if not self.reader.connections:
            # its polling of lookupd ends for good when a node that is named there refuses it; connect() starts it again
            await self.reader.connect()

    async def stop(self) -> None:
        self.consuming.cancel()
        await asyncio.gather(self.consuming, return_exceptions=True)
        await self.reader.close()
        await self.writer.close()


def expect_ok(response: TCPResponse) -> None:
    if not getattr(response, "is_ok", False):
        raise RuntimeError(f"not OK: {response!r}")


conformance.run(Ansq())
