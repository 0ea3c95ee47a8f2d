"""runtime/loop_lag: a loop that stands still shows."""

import time

import anyio

from pynsqd.runtime.loop_lag import LoopWatch
from pynsqd.runtime.metrics import Histogram


async def test_a_loop_that_stands_still_is_late() -> None:
    lag = Histogram()
    watch = LoopWatch(lag)
    await anyio.sleep(0.2)
    time.sleep(0.3)  # until 0.25 s after it should have looked
    with anyio.fail_after(30):
        while not dict(lag.samples())["_count"]:
            await anyio.sleep(0.01)
    watch.close()
    assert dict(lag.samples())["_sum"] > 0.2
