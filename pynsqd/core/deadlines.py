"""When a client is to be sent a heartbeat, and when it is too late: silent, or not reading (PROTOCOL 1.8)."""

from collections.abc import Callable
from typing import Final

from pynsqd.core.timers import Timer, Timers

# How long half a command, or output that is not read, may stand where there are no heartbeats to say so.
_PATIENCE_NS: Final = 60_000_000_000


class Deadlines:
    """The due times of one connection, in ns of the broker's clock; 0 for none.

    It wakes its owner, who asks what is due. nsqd sets its read deadline before each line, so the owner puts
    ``read_due_ns`` off by ``silence_ns`` when whole commands have come; that is two heartbeat intervals, 0 without
    heartbeats. ``unread_since_ns`` is since when the peer does not read what was written.
    """

    __slots__ = (
        "_heartbeat_due_ns",
        "_interval_ns",
        "_timer",
        "_timers",
        "read_due_ns",
        "silence_ns",
        "unread_since_ns",
    )

    def __init__(self, timers: Timers, wake: Callable[[int], int]) -> None:
        """Set nothing yet. ``wake`` takes now in ns and returns the next due time, see Timer."""
        self._timers = timers
        self._timer = Timer(wake)
        self._interval_ns = 0  # between heartbeats, 0 if the client wants none
        self._heartbeat_due_ns = 0
        self.read_due_ns = 0
        self.silence_ns = 0
        self.unread_since_ns = 0

    def restart(self, interval_ns: int, now_ns: int, *, heartbeats: bool) -> None:
        """Count from now with this interval; without ``heartbeats`` the peer has to say something first."""
        self._interval_ns = interval_ns
        self.silence_ns = 2 * interval_ns
        self._heartbeat_due_ns = now_ns + interval_ns if heartbeats and interval_ns else 0
        self.put_off(now_ns)
        if interval_ns:
            self._timers.schedule(self._timer, self.next_due_ns)

    def put_off(self, now_ns: int) -> None:
        """Count the silence from now; where there are no heartbeats it has no end."""
        self.read_due_ns = now_ns + self.silence_ns if self.silence_ns else 0

    def limit_rest(self, done: bool, now_ns: int) -> None:
        """Without heartbeats the rest of a command that has begun still has a deadline.

        It is one for the whole command, however its bytes come; ``done`` says that the one before it has just ended.
        """
        if done or not self.read_due_ns:
            self.read_due_ns = now_ns + _PATIENCE_NS
            self._timers.schedule(self._timer, self.read_due_ns)

    def stop_reading(self, now_ns: int) -> None:
        """The peer does not read what was written."""
        self.unread_since_ns = now_ns
        if not self._interval_ns:
            self._timers.schedule(self._timer, now_ns + _PATIENCE_NS)

    def cancel(self) -> None:
        """Wake nobody any more, and let go of the owner."""
        self._timers.cancel(self._timer)

    def unread_too_long(self, now_ns: int) -> bool:
        """Tell whether the peer has not read for an interval."""
        return self.unread_since_ns > 0 and now_ns - self.unread_since_ns >= (self._interval_ns or _PATIENCE_NS)

    def silent_too_long(self, now_ns: int) -> bool:
        """Tell whether no whole command has come in time."""
        return 0 < self.read_due_ns <= now_ns

    def take_heartbeat(self, now_ns: int) -> bool:
        """Tell whether to send a heartbeat now. The next one is due in step: none is made up for.

        None is piled on top of what the peer does not read.
        """
        if not 0 < self._heartbeat_due_ns <= now_ns:
            return False
        self._heartbeat_due_ns += self._interval_ns * ((now_ns - self._heartbeat_due_ns) // self._interval_ns + 1)
        return not self.unread_since_ns

    @property
    def next_due_ns(self) -> int:
        """When to ask again, in ns; 0 for never. Where there are heartbeats, unread output is looked at with each."""
        unread_due_ns = self.unread_since_ns + _PATIENCE_NS if self.unread_since_ns and not self._interval_ns else 0
        return min(filter(None, (self._heartbeat_due_ns, self.read_due_ns, unread_due_ns)), default=0)
