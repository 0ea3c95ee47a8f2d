"""The drain of a node: no more messages in, those it has out, so that it can be stopped and nobody misses it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from pynsqd.core.broker import Broker
from pynsqd.core.topic import Topic

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_LOOK_S: Final = 0.1
_TELL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Left:
    """What a node still holds, counted once for every channel that owes it."""

    depth: int
    in_flight_count: int
    deferred_count: int


class Drain:
    """Empties the node once somebody has called ``begin``; ``finished`` is set when it may be stopped.

    From ``begin`` on publishes and new topics are refused, and lookupd does not name the node any more. Consumers stay
    connected, others may come, and all get what there is.
    """

    def __init__(self, broker: Broker, leave: Callable[[], Awaitable[None]], log: "FilteringBoundLogger") -> None:
        """Take the broker to empty and what takes the node off lookupd; ``run`` has to run."""
        self.finished = anyio.Event()
        self.began_s = 0.0  # time of day
        self.deadline_s: float | None = None  # time of day, None for none
        self._broker = broker
        self._leave = leave
        self._log = log
        self._wanted = anyio.Event()
        self._end_s: float | None = None  # the deadline on the loop's clock

    def begin(self, timeout_ns: int) -> bool:
        """Begin, or go on for ``timeout_ns`` at most if that is sooner; 0 for as long as it takes.

        Returns whether it has begun only now.
        """
        first = not self._broker.draining
        self._broker.draining = True
        if first:
            self.began_s = time.time()
        end_s = anyio.current_time() + timeout_ns / 1e9
        if timeout_ns and (self._end_s is None or end_s < self._end_s):
            self._end_s = end_s
            self.deadline_s = time.time() + timeout_ns / 1e9
        self._wanted.set()
        return first

    async def run(self) -> None:
        """Wait for ``begin``, then until the node is empty or its time is over."""
        await self._wanted.wait()
        self._log.info("draining", **self._figures())
        await self._leave()
        tell_s = anyio.current_time() + _TELL_S
        while not self._empty():
            now_s = anyio.current_time()
            if self._end_s is not None and now_s >= self._end_s:
                self._log.warning("not drained in time, the rest is kept for the next start", **self._figures())
                break
            if now_s >= tell_s:
                self._log.info("draining", **self._figures())
                tell_s = now_s + _TELL_S
            await anyio.sleep(_LOOK_S)
        else:
            self._log.info("drained")
        self.finished.set()

    def left(self) -> Left:
        """Count what is left."""
        topics = self._broker.topics.values()
        channels = [channel for topic in topics for channel in topic.channels.values()]
        return Left(
            sum(topic.depth for topic in topics) + sum(channel.depth for channel in channels),
            sum(channel.in_flight_count for channel in channels),
            sum(len(channel.deferred) for channel in channels),
        )

    def _figures(self) -> dict[str, int]:
        left = self.left()
        return {"depth": left.depth, "in_flight": left.in_flight_count, "deferred": left.deferred_count}

    def _empty(self) -> bool:
        return not any(map(_holds, self._broker.topics.values()))


def _holds(topic: Topic) -> bool:
    """Tell whether a topic has messages for anybody."""
    return bool(topic.depth) or any(
        channel.depth or len(channel.deferred) or channel.in_flight_count for channel in topic.channels.values()
    )
