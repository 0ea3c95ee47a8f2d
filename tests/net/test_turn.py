"""The end of a turn: append and save, then answer."""

from collections.abc import Callable
from time import monotonic_ns, time_ns

import pytest

from pynsqd.core.broker import Broker
from pynsqd.net.turn import LOOK_AGAIN_NS, Turn
from pynsqd.options import Options
from tests.support.memory_logs import MemoryLogs


class _Connection:
    def __init__(self, done: list[str]) -> None:
        self._done = done

    def flush(self) -> None:
        self._done.append("flush")


async def test_order_of_the_end() -> None:
    """Changes are saved and files seen to before any reply leaves; once, however often it was asked for."""
    done: list[str] = []
    broker = Broker(Options(), MemoryLogs(), monotonic_ns(), time_ns())
    turn = Turn(broker, lambda changes: done.append(changes[0].kind), lambda: done.append("files"))
    connection = _Connection(done)
    broker.topic("t")
    turn.touch(connection)
    turn.touch(connection)
    turn.schedule()
    await turn.committed()
    turn.close()
    assert done == ["topic_created", "files", "flush"]


class _Loop:
    """Keeps what is to be called."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def run_once(self) -> None:
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()


async def test_the_loop_looks_again_where_turns_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = monotonic_ns()
    monkeypatch.setattr("pynsqd.net.turn.monotonic_ns", lambda: now_ns)
    turn = Turn(Broker(Options(), MemoryLogs(), now_ns, time_ns()), lambda _: None)
    loop = turn._loop = _Loop()  # type: ignore[assignment]
    turn.schedule()
    loop.run_once()
    assert not loop.ready  # the first turn says nothing of the next

    now_ns += LOOK_AGAIN_NS - 1
    turn.schedule()
    loop.run_once()
    assert len(loop.ready) == 1
    now_ns += LOOK_AGAIN_NS - 1
    loop.run_once()
    assert len(loop.ready) == 1
    now_ns += 1
    loop.run_once()
    assert not loop.ready  # for so long, and no longer

    now_ns += 1
    turn.schedule()  # it was longer
    loop.run_once()
    assert not loop.ready


async def test_the_loop_does_not_look_while_a_turn_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = monotonic_ns()
    monkeypatch.setattr("pynsqd.net.turn.monotonic_ns", lambda: now_ns)
    turn = Turn(Broker(Options(), MemoryLogs(), now_ns, time_ns()), lambda _: None)
    loop = turn._loop = _Loop()  # type: ignore[assignment]
    for _ in range(5):
        turn.schedule()
        loop.run_once()
    turn.schedule()
    loop.run_once()
    assert len(loop.ready) == 1  # however many turns there were
