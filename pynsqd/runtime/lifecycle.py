"""From the start of the event loop to the signal that ends the daemon (PROCESS 3, 4)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from signal import Signals
from typing import Any, TypeVar, TypeVarTuple

import anyio

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def run(main: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments) -> T:
    """Run the coroutine function ``main`` to its end, on uvloop where it is installed."""
    return anyio.run(main, *arguments, backend="asyncio", backend_options=_loop_options())


def _loop_options() -> dict[str, Any]:
    try:
        from uvloop import new_event_loop  # noqa: PLC0415  # 50 ms that --version does not need
    except ImportError:
        return {}
    return {"loop_factory": new_event_loop}


class StopSignals:
    """The signals received since ``stop_signals()`` was entered."""

    def __init__(self, received: AsyncIterator[Signals]) -> None:
        self._received = received

    async def wait(self, on_hangup: Callable[[], Awaitable[None]]) -> Signals:
        """Wait for SIGINT or SIGTERM and return it; await ``on_hangup`` for every SIGHUP until then.

        What ``on_hangup`` raises ends the wait, so it has to deal with its own failures.
        """
        async for number in self._received:
            if number is not Signals.SIGHUP:
                return number
            await on_hangup()
        raise AssertionError("the signal receiver never ends")


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Take SIGINT, SIGTERM and SIGHUP from here on, so that none kills the daemon; ``wait()`` handles them.

    Enter it before anything is started and leave it after everything is stopped: a SIGTERM that comes while the daemon
    starts then stops it cleanly as soon as it waits, and a second one does not cut the stopping short.
    """
    with anyio.open_signal_receiver(Signals.SIGINT, Signals.SIGTERM, Signals.SIGHUP) as received:
        yield StopSignals(received)
