"""/debug/*: what Python has in the place of Go's profiles, as plain text under the same paths (DEVIATIONS)."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import sys
import threading
import traceback
from collections import Counter
from types import FrameType
from typing import Final

import anyio

from pynsqd.runtime.http import HttpRequest, Reply, Router, plain
from pynsqd.runtime.memory import memory_figures

_SAMPLE_S: Final = 0.01
_LONGEST_PROFILE_S: Final = 300.0
_MOST_TYPES: Final = 40
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_INDEX: Final = {
    "cmdline": "the command line",
    "goroutine": "the stack of every task and thread",
    "heap": "memory figures, and the most frequent types of objects",
    "profile": "where the processor time goes: stacks sampled for ?seconds=30, folded, with their counts",
    "threadcreate": "the threads",
}


class DebugApi:
    """The handlers."""

    def add_routes(self, router: Router) -> None:
        """Add the routes."""
        for name, handler in (
            ("", self.index),
            ("block", self.threads),
            ("cmdline", self.cmdline),
            ("goroutine", self.stacks),
            ("heap", self.heap),
            ("profile", self.profile),
            ("symbol", self.symbol),
            ("threadcreate", self.threads),
        ):
            router.add("GET", f"/debug/pprof/{name}", handler)
        router.add("POST", "/debug/pprof/symbol", self.symbol)
        router.add("PUT", "/debug/setblockrate", self.set_block_rate)
        router.add("POST", "/debug/freememory", self.free_memory)

    async def index(self, request: HttpRequest) -> Reply:
        """List what there is."""
        rows = "".join(f'<li><a href="{name}">{name}</a>: {text}</li>\n' for name, text in _INDEX.items())
        page = f"<html><head><title>/debug/pprof/</title></head><body><ul>\n{rows}</ul></body></html>\n"
        return Reply(200, page.encode(), (("Content-Type", "text/html; charset=utf-8"),))

    async def cmdline(self, request: HttpRequest) -> Reply:
        """Give the command line, its words separated by NUL as in Go."""
        return plain("\0".join(sys.argv))

    async def stacks(self, request: HttpRequest) -> Reply:
        """Give the stack of every task and thread."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        parts = [
            f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}"
            for ident, frame in sys._current_frames().items()
        ]
        for task in asyncio.all_tasks():
            frames = "".join(line for frame in task.get_stack() for line in traceback.format_stack(frame, 1))
            parts.append(f"task {task.get_name()} {task.get_coro()!r}\n{frames}")
        return plain("\n".join(parts))

    async def threads(self, request: HttpRequest) -> Reply:
        """Name the threads."""
        return plain("".join(f"{thread.name}\n" for thread in threading.enumerate()))

    async def heap(self, request: HttpRequest) -> Reply:
        """Give the memory figures and what kinds of objects there are."""
        figures = "".join(f"{name} {value}\n" for name, value in memory_figures().items())
        types = Counter(type(each).__qualname__ for each in gc.get_objects())
        return plain(figures + "".join(f"{count:>10} {name}\n" for name, count in types.most_common(_MOST_TYPES)))

    async def profile(self, request: HttpRequest) -> Reply:
        """Sample the stack of the main thread as long as it uses the processor, and count what was seen."""
        asked = request.query().get("seconds", "30")
        if not _SECONDS.fullmatch(asked) or not 0 < float(asked) <= _LONGEST_PROFILE_S:
            return plain(f"seconds must be more than 0 and at most {_LONGEST_PROFILE_S:.0f}\n", 400)
        if signal.getitimer(signal.ITIMER_PROF)[0]:
            return plain("a profile is being taken already\n", 500)
        seen: Counter[str] = Counter()
        # A signal, since a sampling thread would only see the places where the main thread lets go of the interpreter.
        signal.signal(signal.SIGPROF, lambda _, frame: seen.update((_folded(frame),)))
        signal.setitimer(signal.ITIMER_PROF, _SAMPLE_S, _SAMPLE_S)
        try:
            await anyio.sleep(float(asked))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, signal.SIG_IGN)  # one may still be on its way, and would kill by default
        return plain("".join(f"{stack} {count}\n" for stack, count in seen.most_common()))

    async def symbol(self, request: HttpRequest) -> Reply:
        """Say, as Go does, that symbols can be asked for; there are none."""
        reply = plain("num_symbols: 1\n")
        return Reply(200, reply.body, (*reply.headers, ("X-Content-Type-Options", "nosniff")))

    async def set_block_rate(self, request: HttpRequest) -> Reply:
        """Take a rate and do nothing; a bad one gets nsqd's answer."""
        rate = request.query().get("rate", "")
        if not re.fullmatch(r"[+-]?[0-9]+", rate, re.ASCII):
            return plain(f'invalid block rate : strconv.Atoi: parsing "{rate}": invalid syntax', 400)
        return plain("")

    async def free_memory(self, request: HttpRequest) -> Reply:
        """Collect garbage now."""
        gc.collect()
        return plain("")


def _folded(frame: FrameType | None) -> str:
    """Return a stack as flame graph tools take it: ``outer;inner``."""
    calls: list[str] = []
    while frame is not None:
        calls.append(f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return ";".join(reversed(calls))
