"""Two clients that do nothing wrong: what one publishes the other must get once, soon, whatever others do."""

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api
from tests.support.wire import command, mpub

TOPIC = "good"
CHANNEL = "c"


class Pair:
    """A publisher and a consumer on connections that have to last. Every wait has the deadline of ``V2``."""

    def __init__(self, publisher: V2, consumer: V2, api: Api) -> None:
        self._publisher = publisher
        self._consumer = consumer
        self._api = api
        self.published = 0

    async def exchange(self, rounds: int) -> None:
        """Publish a single message and a batch a round; each must come once, as it was, at its first attempt."""
        for _ in range(rounds):
            bodies = [b"%d" % number for number in range(self.published, self.published + 5)]
            assert await self._publisher.ask(command(b"PUB good", bodies[0])) == OK
            assert await self._publisher.ask(mpub(b"good", bodies[1:])) == OK
            messages = await self._consumer.messages(len(bodies))
            assert [(message.body, message.attempts) for message in messages] == [(body, 1) for body in bodies]
            await self._consumer.finish(messages)
            self.published += len(bodies)

    async def settle(self) -> None:
        """Say that nothing is left over and nothing came twice."""
        await self.exchange(1)
        await self._consumer.ask(b"FIN 0000000000000000\n")  # answered when all FINs before it are done
        shown = await self._api.channel(CHANNEL, TOPIC)
        counts = ("depth", "in_flight_count", "deferred_count", "requeue_count", "timeout_count", "message_count")
        assert [shown[name] for name in counts] == [0, 0, 0, 0, 0, self.published], shown


@asynccontextmanager
async def pair(node: Daemon) -> AsyncIterator[Pair]:
    """Have such a pair on a node."""
    async with (
        await V2.consumer(node.tcp, 100, TOPIC, CHANNEL) as consumer,
        await V2.open(node.tcp, deadline_s=30) as publisher,
    ):
        yield Pair(publisher, consumer, Api(node.http))


def descriptors(node: Daemon) -> int:
    """Return how many files and sockets the node has open."""
    return len(list(Path(f"/proc/{node.pid}/fd").iterdir()))


def rss_bytes(node: Daemon) -> int:
    """Return what the node has in memory now."""
    return int(Path(f"/proc/{node.pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def clients(node: Daemon) -> int:
    """Return how many V2 clients the node knows of: consumers and producers."""
    shown = await Api(node.http).stats()
    consumers = sum(channel["client_count"] for topic in shown["topics"] for channel in topic["channels"])
    return int(consumers + len(shown["producers"] or ()))
