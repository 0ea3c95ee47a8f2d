"""Runs the load in processes of its own, all let go at one moment, and reads the broker's CPU time around it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from load.broker import Broker
from load.failed import Failed

RUN_LIMIT_S = 50.0  # under the heartbeat interval that the consumers ask for: no heartbeat disturbs a run

T = TypeVar("T")
Start = Callable[[], None]
Job = Callable[[Start], T]  # connects and prepares, calls start() once, then loads; returns its result


@dataclass(frozen=True)
class Run(Generic[T]):
    """What the jobs returned, in their order, and what it took."""

    results: list[T]
    seconds: float
    broker_cpu_s: float
    load_cpu_s: float
    machine_cpu_s: float

    def rates(self, messages: int, seconds: float | None = None) -> dict[str, float]:
        """The figures of a throughput row; `seconds` where the tool measured a shorter time than the whole run."""
        elapsed = seconds or self.seconds
        return {
            "messages/s": messages / elapsed,
            "broker CPU µs/message": self.broker_cpu_s / messages * 1e6,
            "load generator, cores": self.load_cpu_s / self.seconds,
            "other processes, cores": (self.machine_cpu_s - self.broker_cpu_s - self.load_cpu_s) / self.seconds,
        }


def run(broker: Broker, *jobs: Job[T]) -> Run[T]:
    """Each job in its own process. Raises `Failed` with the job's error, or after `RUN_LIMIT_S`."""
    context = multiprocessing.get_context("fork")
    go = context.Event()

    def child(job: Job[T], pipe: Connection) -> None:
        def start() -> None:
            pipe.send("ready")
            go.wait()

        try:
            result = job(start)
            used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            pipe.send((result, time.monotonic(), sum(u.ru_utime + u.ru_stime for u in used)))
        except Exception as error:
            pipe.send(Failed(f"{type(error).__name__}: {error}"))

    with ExitStack() as stack:
        pipes: list[Connection] = []
        for job in jobs:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(job, theirs), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            pipes.append(ours)
        for pipe in pipes:
            _receive(pipe)
        cpu_s, machine_cpu_s, began = broker.cpu_s(), _machine_cpu_s(), time.monotonic()
        go.set()
        answers = [_receive(pipe) for pipe in pipes]
        cpu_s, machine_cpu_s = broker.cpu_s() - cpu_s, _machine_cpu_s() - machine_cpu_s
    return Run(
        results=[result for result, _, _ in answers],
        seconds=max(ended for _, ended, _ in answers) - began,
        broker_cpu_s=cpu_s,
        load_cpu_s=sum(used_s for _, _, used_s in answers),
        machine_cpu_s=machine_cpu_s,
    )


def _machine_cpu_s() -> float:
    """CPU seconds of everything on this machine so far, stolen ones too: user, nice, system, irq, softirq, steal."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(RUN_LIMIT_S):
        raise Failed(f"the load did not finish within {RUN_LIMIT_S:.0f} s")
    answer = pipe.recv()
    if isinstance(answer, Failed):
        raise answer
    return answer
