"""The thread of the fsyncs."""

from collections.abc import Callable

from pynsqd.net.fsyncs import Failed, Fsyncs
from pynsqd.wire.errors import StorageError
from tests.support.memory_logs import MemoryLog
from tests.support.nodes import eventually
from tests.support.session_wire import Node


class _Log(MemoryLog):
    def __init__(self, on_sync: Callable[[], None]) -> None:
        super().__init__()
        self._on_sync = on_sync

    def sync(self) -> None:
        self._on_sync()


async def test_metadata_come_first_and_without_them_nothing_counts_as_synced() -> None:
    order: list[str] = []
    wrong: list[StorageError] = []
    done: list[Failed] = []
    topic = Node().broker.topic("t")
    topic.log = _Log(lambda: order.append("log"))

    def sync_metadata() -> None:
        order.append("metadata")
        if wrong:
            raise wrong[0]

    fsyncs = Fsyncs(sync_metadata, done.append)
    try:
        fsyncs.begin([topic])
        await eventually(lambda: len(done) == 1)
        wrong.append(StorageError("the disk is gone"))
        fsyncs.begin([topic])
        await eventually(lambda: len(done) == 2)
    finally:
        fsyncs.close()
    assert done == [{}, {topic: wrong[0]}]
    assert order == ["metadata", "log", "metadata"]
