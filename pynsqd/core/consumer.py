"""One subscription: how much it may hold (RDY), what it holds, what became of it. Hot."""

from collections.abc import Callable
from random import random
from typing import TYPE_CHECKING

from pynsqd.core.batch import Batch
from pynsqd.core.in_flight import Delivery, InFlight
from pynsqd.core.timers import Timer
from pynsqd.wire.encoder import message_id, split_frames, timestamp_ns

if TYPE_CHECKING:
    from pynsqd.core.channel import Channel

# Most bytes of messages that are handed over before the connection has written them.
MAX_UNWRITTEN = 1 << 18


class Consumer:
    """Takes messages from a channel while fewer than ``rdy`` are in flight (PROTOCOL 1.10)."""

    __slots__ = (
        "_send",
        "_unwritten",
        "blocked",
        "channel",
        "finish_count",
        "in_flight",
        "message_count",
        "msg_timeout_ns",
        "rdy",
        "requeue_count",
        "sample_rate",
        "timer",
        "waiting",
    )

    def __init__(
        self, channel: "Channel", send: Callable[[bytes], None], msg_timeout_ns: int, sample_rate: int
    ) -> None:
        self.channel = channel
        self._send = send
        self._unwritten = 0
        self.blocked = False  # the peer does not read: see ``block``
        self.finish_count = 0
        self.in_flight = InFlight()
        self.message_count = 0
        self.msg_timeout_ns = msg_timeout_ns
        self.rdy = 0
        self.requeue_count = 0
        self.sample_rate = sample_rate
        self.timer = Timer(self._expire)
        self.waiting = False  # stands in the channel's queue of ready consumers

    @property
    def window(self) -> int:
        """How many more messages may be sent to it now."""
        if self.blocked or self._unwritten >= MAX_UNWRITTEN:
            return 0
        return self.rdy - len(self.in_flight.entries)

    def deliver(self, batch: Batch, now_ns: int) -> None:
        """Send ``batch``; from now on it is in flight."""
        if self.sample_rate:
            batch = self._sample(batch)
            if not batch.ids:
                return
        if not self.in_flight.entries:
            self.channel.timers.schedule(self.timer, now_ns + self.msg_timeout_ns)
        self.in_flight.add(batch, now_ns, self.msg_timeout_ns)
        self.message_count += batch.count
        self._unwritten += batch.size
        self._send(batch.frames)

    def _sample(self, batch: Batch) -> Batch:
        """Keep sample_rate % of the messages; the others are gone for the channel, never in flight."""
        frames = split_frames(batch.frames)
        kept = [frame for frame in frames if random() * 100 < self.sample_rate]  # noqa: S311 - no secret
        return Batch([message_id(frame) for frame in kept], b"".join(kept), batch.position, fresh=batch.fresh)

    def set_rdy(self, count: int) -> None:
        """Set the window; what is in flight above it stays where it is."""
        self.rdy = count
        self.channel.wake(self)

    def written(self) -> None:
        """What was sent has been handed to the socket."""
        if self._unwritten:
            full = self._unwritten >= MAX_UNWRITTEN
            self._unwritten = 0
            if full:
                self.channel.wake(self)

    def block(self) -> None:
        """Send no more: the peer reads slower than we write."""
        self.blocked = True

    def unblock(self) -> None:
        """The peer has caught up."""
        self.blocked = False
        self.channel.wake(self)

    def finish(self, ids: list[bytes], now_ns: int) -> int:
        """Finish ``ids`` in order; return how many, which is the index of the first that is not in flight here."""
        done = self.in_flight.finish(ids) if self.channel.latency is None else self._finish_timed(ids, now_ns)
        if done:
            self.finish_count += done
            self.channel.wake(self)
        return done

    def _finish_timed(self, ids: list[bytes], now_ns: int) -> int:
        """Finish ``ids`` as InFlight.finish does, and count how long each has taken."""
        latency = self.channel.latency
        assert latency is not None  # noqa: S101 - see finish
        wall_ns = self.channel.wall_ns(now_ns)
        for done, one in enumerate(ids):
            delivery = self.in_flight.entries.pop(one, None)
            if delivery is None:
                return done
            latency.add(wall_ns - timestamp_ns(delivery.frame(one)), now_ns)
        return len(ids)

    def requeue(self, ids: list[bytes], delay_ns: int, now_ns: int) -> int:
        """Give ``ids`` back in order, to be delivered after ``delay_ns``; return how many, as ``finish``.

        Raises StorageError if the delay cannot be kept on disk; the messages are in flight still.
        """
        entries = self.in_flight.entries
        given: dict[bytes, Delivery] = {}
        for one in ids:
            delivery = entries.get(one)
            if delivery is None or one in given:
                break
            given[one] = delivery
        if not given:
            return 0
        if delay_ns:
            self.channel.defer(now_ns + delay_ns, given)
        else:
            self.channel.put_back(list(given.items()))
        for one in given:
            del entries[one]
        self.requeue_count += len(given)
        self.channel.requeue_count += len(given)
        self.channel.wake(self)
        return len(given)

    def touch(self, one: bytes, now_ns: int, timeout_ns: int) -> bool:
        """Start the timeout of message ``one`` again; False if it is not in flight here."""
        deadline_ns = self.in_flight.touch(one, now_ns, timeout_ns, self.channel.max_msg_timeout_ns)
        if deadline_ns:
            self.channel.timers.schedule(self.timer, deadline_ns)
        return deadline_ns != 0

    def leave(self) -> None:
        """Unsubscribe: what is in flight goes back to the channel at once (nsqd lets it wait for its timeout)."""
        self.channel.timers.cancel(self.timer)
        self.rdy = 0
        held = self.in_flight.clear()
        if held:
            self.channel.put_back(held)
        self.channel.remove(self)

    def _expire(self, now_ns: int) -> int:
        expired = self.in_flight.expire(now_ns)
        if expired:
            self.channel.timeout_count += len(expired)
            self.channel.put_back(expired)
            self.channel.wake(self)
        return self.in_flight.next_deadline_ns()
