"""The end of a turn: append and save, then answer."""

from time import monotonic_ns, time_ns

from pynsqd.core.broker import Broker
from pynsqd.net.turn import Turn
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
