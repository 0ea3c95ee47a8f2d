"""The turn of the loop: everything that was ready has been read; now append, acknowledge, deliver, write. Hot."""

import asyncio
from collections.abc import Callable
from time import monotonic_ns, time_ns
from typing import Final, Protocol

from pynsqd.core.broker import Broker
from pynsqd.core.changes import Change
from pynsqd.core.timers import NEVER

# What one read can bring, and so how much of one connection is carried out before others have their turn. One buffer
# serves every connection, since each read is copied out before the next.
RECEIVE_BUFFER: Final = 1 << 16

# Where the last turn came so soon after the one before, the next will too. To sleep for less costs more than to look
# again: two publishers with one PUB in flight each got 14,900 answers a second without this and 24,200 with it, for 46
# and 39 µs of CPU each.
LOOK_AGAIN_NS: Final = 50_000


class Flushable(Protocol):
    """A connection with replies to write."""

    def flush(self) -> None:
        """Write them, in one write."""
        ...


class Turn:
    """Ends the broker's turn once after all sockets that were ready, and at its due times.

    Before any reply of the turn leaves, ``on_changes`` is called with what was created, deleted or paused, and
    ``after_turn`` to see to the files.
    """

    def __init__(
        self,
        broker: Broker,
        on_changes: Callable[[list[Change]], None],
        after_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self.broker = broker
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self._on_changes = on_changes
        self.after_turn = after_turn
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._ended_ns = 0  # when the last turn ended, and how long it took from there to the beginning of the next
        self._gap_ns = LOOK_AGAIN_NS
        self._touched: dict[Flushable, None] = {}
        self._committed: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ns = NEVER

    @staticmethod
    def now_ns() -> int:
        """Return the broker's clock: monotonic, in ns."""
        return monotonic_ns()

    def touch(self, connection: Flushable) -> None:
        """Flush ``connection`` at the end of this turn."""
        self._touched[connection] = None
        if not self._scheduled:
            self.schedule()

    def heard(self, connection: Flushable) -> int:
        """As ``touch``, and return now: one call and one look at the clock a read, not four and two (0.2 µs)."""
        self._touched[connection] = None
        now_ns = monotonic_ns()
        if not self._scheduled:
            self._scheduled = True
            self._gap_ns = now_ns - self._ended_ns
            self._loop.call_soon(self._end)
        return now_ns

    def schedule(self) -> None:
        """Make sure that the turn ends: something has changed in the broker."""
        if not self._scheduled:
            self._scheduled = True
            self._gap_ns = monotonic_ns() - self._ended_ns
            self._loop.call_soon(self._end)

    async def committed(self) -> None:
        """Wait for the end of this turn: what was published is in the log, what was changed is saved."""
        if self._committed is None:
            self._committed = self._loop.create_future()
        self.schedule()
        await asyncio.shield(self._committed)

    def _end(self) -> None:
        self._scheduled = False
        broker = self.broker
        broker.end_turn(monotonic_ns(), time_ns())
        if broker.changes:
            self._on_changes(broker.take_changes())
        self.after_turn()
        touched, self._touched = self._touched, {}
        if broker.output:
            for session in broker.take_output():
                session.flush()
        for connection in touched:
            connection.flush()
        if self._committed is not None:
            self._committed.set_result(None)
            self._committed = None
        if broker.dirty or broker.publishing:
            self.schedule()
        if broker.timers.earliest_ns < self._alarm_ns:
            self._arm(broker.timers.earliest_ns)
        self._ended_ns = monotonic_ns()
        if self._gap_ns < LOOK_AGAIN_NS:
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Have the loop look for input once more instead of going to sleep, for a while."""
        if not self._scheduled and monotonic_ns() - self._ended_ns < LOOK_AGAIN_NS:
            self._loop.call_soon(self._look)

    def _arm(self, due_ns: int) -> None:
        """Set the one timer of the node: what it is set to is not early enough."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ns = due_ns
        self._alarm = self._loop.call_later(max(0, due_ns - monotonic_ns()) / 1e9, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._alarm_ns = NEVER
        self.schedule()

    def soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once this turn has ended."""
        self.schedule()
        self._loop.call_soon(callback)

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` in a while: for what is rare and not the broker's."""
        self._loop.call_later(seconds, callback)

    def close(self) -> None:
        """Set no more timers."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
            self._alarm_ns = NEVER
