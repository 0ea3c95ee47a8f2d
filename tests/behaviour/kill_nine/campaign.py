"""One node's many lives under load, each ended by SIGKILL or now and then by SIGTERM, and what it owed in the end."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic_ns
from typing import Any, Final

from tests.behaviour.kill_nine.consumers import Consumer
from tests.behaviour.kill_nine.ledger import Ledger, Limits
from tests.behaviour.kill_nine.node import Node, Owed
from tests.behaviour.kill_nine.publishers import Delays, HttpPublisher, TcpPublisher
from tests.behaviour.kill_nine.records import MS, SECOND

TOPICS: Final = {"alone": ["only"], "pair": ["left", "right"], "three": ["one", "two", "seldom"]}
_SELDOM: Final = "seldom"  # its consumers miss most lives, so a backlog grows

_IN_START_UP: Final = 0.08
_CLEAN: Final = 0.08
_LONG: Final = 0.15  # long enough for messages to time out, and for checkpoints to be old
_LIVES_PER_DRAIN: Final = 25  # at most: a backlog has to grow, and a loss to be found while its traces are fresh
_DRAIN_STALLED_S: Final = 30.0  # longer than the real nsqd's slowest timers need
_STOP_S: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """What to do to a node."""

    kills: int
    seed: str
    flags: list[str] = field(default_factory=list)
    far_ms: int = 3000  # the longest deferral
    limits: Limits = field(default_factory=Limits)


class Campaign:
    """Kills one node. ``run`` it once, then look at ``ledger``."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.ledger = Ledger(TOPICS, plan.limits)
        self._random = Random(f"{plan.seed} lives")
        self._node = Node(folder, plan.flags)
        self._lag = _Lag()
        topics, delays = list(TOPICS), Delays(plan.far_ms)
        self._tcp = [TcpPublisher(n, self._seeded(n), self.ledger, topics, delays) for n in ("tcp 1", "tcp 2", "tcp 3")]
        self._http = [HttpPublisher(n, self._seeded(n), self.ledger, topics, delays) for n in ("http 1", "http 2")]
        self._consumers = [
            Consumer(name := f"{topic}/{channel} {number}", topic, channel, self._seeded(name), self.ledger)
            for topic, channel in self.ledger.channels
            for number in (1, 2)
        ]

    def _seeded(self, actor: str) -> Random:
        return Random(f"{self.plan.seed} {actor}")

    async def run(self, progress: Callable[[], None] = lambda: None) -> None:
        """Kill the node as often as planned, or until a promise is broken; ``progress`` is called after each kill."""
        watching = asyncio.create_task(self._lag.watch())
        try:
            await self._lives(progress)
        finally:
            watching.cancel()
            await asyncio.to_thread(self._node.daemon.kill)

    async def _lives(self, progress: Callable[[], None]) -> None:
        await self._create_channels()
        until_drain = self._random.randint(1, _LIVES_PER_DRAIN)
        tally = self.ledger.tally
        while tally.kills < self.plan.kills and not self.ledger.violations:
            kills = tally.kills
            await self._one_life()
            until_drain -= 1
            if tally.kills > kills:
                progress()
            if not until_drain and not self.ledger.violations:
                until_drain = self._random.randint(1, _LIVES_PER_DRAIN)
                await self._drain()
        if all(violation.kind == "owes too little" for violation in self.ledger.violations):
            await self._drain(until_ns=self.ledger.last_due_ns)  # and which ones, if it owes too little?
        if not self.ledger.violations:
            await self._nothing_is_left()

    async def _create_channels(self) -> None:
        await self._begin_life()
        for topic, channels in TOPICS.items():
            await self._node.post(f"/topic/create?topic={topic}")
            for channel in channels:
                await self._node.post(f"/channel/create?topic={topic}&channel={channel}")
        await self._end_life(signal.SIGKILL)

    # -- kinds of lives ------------------------------------------------------------------------------------------

    async def _one_life(self) -> None:
        if self._random.random() < _IN_START_UP:
            await self._die_in_start_up()
            return
        if not await self._begin_life():
            return
        await self._compare_owed()
        absent = self._random.random() < 0.7
        consumers = [one for one in self._consumers if not (absent and one.channel == _SELDOM)]
        publishing = [one.live(self._node.tcp) for one in self._tcp] + [one.live(self._node.http) for one in self._http]
        clients = _start(publishing + [one.live(self._node.tcp, draining=False) for one in consumers])
        long = self._random.random() < _LONG
        await asyncio.sleep(self._random.uniform(0.4, 1.6) if long else self._random.uniform(0.02, 0.4))
        await self._end_life(signal.SIGTERM if self._random.random() < _CLEAN else signal.SIGKILL, clients)

    async def _die_in_start_up(self) -> None:
        """Kill it while it starts, which it may just have done."""
        self.ledger.begin_life(monotonic_ns())
        starting = asyncio.create_task(asyncio.to_thread(self._node.start))
        await asyncio.sleep(self._random.uniform(0.05, 0.5))
        ended_ns = monotonic_ns()
        if self._node.daemon.running:
            self._node.signal(signal.SIGKILL)
        died = await asyncio.gather(starting, return_exceptions=True)
        if self._node.daemon.running:  # it had not even been forked, and is up now
            ended_ns = self._node.signal(signal.SIGKILL)
        code = await asyncio.to_thread(self._node.daemon.wait)
        if code != -signal.SIGKILL:
            self.ledger.violate("start", f"the node ended by itself, code {code}: {died[0]}")
        await self._dead(ended_ns, clean=False)

    async def _drain(self, until_ns: int = 0) -> None:
        """Publish nothing and finish everything that is due, then stop cleanly and close the accounts."""
        if not await self._begin_life():
            return
        await self._compare_owed()
        clients = _start([one.live(self._node.tcp, draining=True) for one in self._consumers])
        drained_ns = await self._until_drained(until_ns)
        await self._end_life(signal.SIGTERM, clients)
        self.ledger.settle(drained_ns)
        if not self.ledger.violations:
            await asyncio.to_thread(self._node.forget)

    async def _until_drained(self, until_ns: int) -> int:
        """Wait until the node owes nothing that is due, or nothing happens any more; return the time that holds for."""
        ledger = self.ledger
        moved = (-1, -1)
        moved_ns = monotonic_ns()
        while self._node.daemon.running:
            now_ns = monotonic_ns()
            due_ns = now_ns - SECOND // 2  # late is no failure here
            left = {channel: len(ledger.unfinished(*channel, due_ns)) for channel in ledger.channels}
            owed = await self._owed()
            if due_ns > until_ns and all(self._is_drained(channel, left[channel], owed, due_ns) for channel in left):
                return due_ns
            moving = (ledger.tally.deliveries, sum(left.values()))
            if moving != moved or due_ns <= until_ns:
                moved, moved_ns = moving, now_ns
            elif now_ns - moved_ns > _DRAIN_STALLED_S * SECOND:
                ledger.violate("stuck", f"nothing moves; owed: {owed}; known to be due: {left}")
                return due_ns
            await asyncio.sleep(0.05)
        return monotonic_ns()

    def _is_drained(self, channel: tuple[str, str], left: int, owed: dict[tuple[str, str], Owed], due_ns: int) -> bool:
        due, deferred = owed.get(channel, Owed(0, 0))
        if left and deferred:
            return False
        # With nothing owed it is drained, even when messages are left: those are lost.
        return due == 0 and deferred <= self.ledger.undue(channel[0], due_ns)

    async def _nothing_is_left(self) -> None:
        """Start the drained node once more: it must have nothing to say."""
        if not await self._begin_life():
            return
        await self._compare_owed()
        clients = _start([one.live(self._node.tcp, draining=True) for one in self._consumers])
        await asyncio.sleep(0.5)
        await self._end_life(signal.SIGTERM, clients)

    # -- begin and end -------------------------------------------------------------------------------------------

    async def _begin_life(self) -> bool:
        self.ledger.begin_life(monotonic_ns())
        try:
            await asyncio.to_thread(self._node.start)
        except AssertionError as error:
            self.ledger.violate("start", str(error))
            return False
        self.ledger.listening(monotonic_ns())
        self._lag.longest_ns = 0
        return True

    async def _owed(self) -> dict[tuple[str, str], Owed]:
        try:
            return await self._node.owed()
        except (AssertionError, LookupError, OSError, ValueError) as error:  # cut short, wherever
            self.ledger.violate("stats", f"{error!r}\n{self._node.daemon.stderr}")
            return {}

    async def _compare_owed(self) -> None:
        owed = await self._owed()
        for channel in self.ledger.channels:
            self.ledger.check_owed(*channel, sum(owed.get(channel, (0, 0))))

    async def _end_life(self, number: signal.Signals, clients: "asyncio.Future[Any] | None" = None) -> None:
        daemon = self._node.daemon
        if not daemon.running:
            self.ledger.violate("died", f"the node ended by itself\n{daemon.stderr}")
            return
        ended_ns = self._node.signal(number)
        code = await asyncio.to_thread(daemon.wait, _STOP_S)
        if code != (0 if number is signal.SIGTERM else -number):
            self.ledger.violate("end", f"exit code {code} after {number.name}\n{daemon.stderr}")
        if clients is not None:
            await asyncio.wait_for(clients, _STOP_S)
        if "Traceback" in daemon.stderr:
            self.ledger.violate("traceback", daemon.stderr)
        await self._dead(ended_ns, clean=number is signal.SIGTERM)

    async def _dead(self, ended_ns: int, *, clean: bool) -> None:
        self.ledger.end_life(ended_ns, clean=clean, lag_ns=self._lag.longest_ns)
        await asyncio.to_thread(self._node.keep, self.ledger.lives[-1].number)


def _start(clients: list[Coroutine[Any, Any, None]]) -> "asyncio.Future[Any]":
    return asyncio.gather(*clients)


class _Lag:
    """How long the loop stands still at most: our stamps are that much off, and the node has waited too."""

    def __init__(self) -> None:
        self.longest_ns = 0

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            began_ns = monotonic_ns()
            await asyncio.sleep(0.005)
            self.longest_ns = max(self.longest_ns, monotonic_ns() - began_ns - 5 * MS)
