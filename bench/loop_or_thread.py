"""Should the log be written in the loop or in a thread? What appends, fsyncs and a hop to a thread and back take.

In process, on the disk of --folder. A thread would take stalls of the disk off the loop, but every turn with a publish
would wait for two hops; the appends of one turn are one write already.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import uvloop

BATCH = bytes(46_000)  # an MPUB of 200 messages of 200 bytes
LONE = bytes(266)


def appends(path: Path, payload: bytes, seconds: float) -> list[float]:
    """Write as fast as the disk lets us, into the page cache, as the log does; returns ms for each."""
    taken = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    end = time.monotonic() + seconds
    try:
        while (began := time.perf_counter()) and time.monotonic() < end:
            os.write(descriptor, payload)
            taken.append((time.perf_counter() - began) * 1e3)
    finally:
        os.close(descriptor)
    return taken


def synced_appends(path: Path, payload: bytes, count: int) -> list[float]:
    """Write and fdatasync; returns ms for each."""
    taken = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for _ in range(count):
            began = time.perf_counter()
            os.write(descriptor, payload)
            os.fdatasync(descriptor)
            taken.append((time.perf_counter() - began) * 1e3)
    finally:
        os.close(descriptor)
    return taken


async def hops(count: int) -> list[float]:
    """Hand nothing to a thread that waits for it, and hear of it in the loop; returns ms for each."""
    loop = asyncio.get_running_loop()
    asked: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()

    def work() -> None:
        while (future := asked.get()) is not None:
            loop.call_soon_threadsafe(future.set_result, None)

    thread = Thread(target=work)
    thread.start()
    taken = []
    try:
        for _ in range(count):
            future: asyncio.Future[None] = loop.create_future()
            began = time.perf_counter()
            asked.put(future)
            await future
            taken.append((time.perf_counter() - began) * 1e3)
    finally:
        asked.put(None)
        thread.join()
    return taken


def row(name: str, taken: list[float]) -> str:
    """A line of the table."""
    ordered = sorted(taken)

    def at(share: float) -> str:
        return f"{ordered[int(share * (len(ordered) - 1))]:.3f}"

    return f"| {name} | {statistics.fmean(ordered):.3f} | {at(0.5)} | {at(0.99)} | {at(0.999)} | {ordered[-1]:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk in question; a temporary one if not given"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="how long batches are appended at full speed")
    arguments = parser.parse_args()
    print("| ms | mean | p50 | p99 | p99.9 | worst |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        lines: list[tuple[str, Callable[[], list[float]]]] = [
            ("append of a lone message", lambda: appends(Path(folder, "lone"), LONE, 1.0)),
            ("append of a batch of 46 KB, at full speed", lambda: appends(Path(folder, "b"), BATCH, arguments.seconds)),
            ("append and fsync of a lone message", lambda: synced_appends(Path(folder, "lone"), LONE, 1000)),
            ("append and fsync of a batch", lambda: synced_appends(Path(folder, "b"), BATCH, 1000)),
            ("hop to a thread and back", lambda: uvloop.run(hops(20_000))),
        ]
        for name, measure in lines:
            print(row(name, measure()), flush=True)


if __name__ == "__main__":
    main()
