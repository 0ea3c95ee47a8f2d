"""How fast could a broker in one Python process be? A loop that reads a PUB, writes OK and does nothing else.

The load is that of pub_one_in_flight.py: what separates the two figures is the broker's own work. One loop sleeps until
there is input, as most do. The other looks for input again and again, as the broker's does when it is busy.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
from multiprocessing.connection import Connection
from typing import cast

import uvloop
from load.broker import Broker
from load.processes import run
from load.publish import CONNECTIONS, repeat_for
from load.wire import BODY, OK, pub

MAGIC = b"  V2"
BUFFER = memoryview(bytearray(1 << 18))


class Answering(asyncio.BufferedProtocol):
    """Answers every read but the first with OK."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(BUFFER[:nbytes])
        if data != MAGIC:
            self._transport.write(OK)


def serve(pipe: Connection, sleeping: bool) -> None:
    """Listen, tell the port, and answer for ever."""

    async def answer() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answering, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])

        def look_again() -> None:
            loop.call_soon(look_again)

        if not sleeping:
            look_again()
        await server.serve_forever()

    uvloop.run(answer())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements, each of a fresh process (default 5)")
    rounds = parser.parse_args().rounds
    measure("a loop that sleeps", sleeping=True, rounds=rounds)
    measure("a loop that looks again", sleeping=False, rounds=rounds)


def measure(name: str, *, sleeping: bool, rounds: int) -> None:
    """Print the medians of so many rounds."""
    rates, costs = [], []
    for _ in range(rounds):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=serve, args=(theirs, sleeping), daemon=True)
        process.start()
        try:
            broker = Broker(("127.0.0.1", ours.recv()), ("127.0.0.1", 0), process.pid)
            published = run(broker, *[repeat_for(broker, pub("t", BODY))] * CONNECTIONS)
        finally:
            process.kill()
            process.join()
        figures = published.rates(sum(published.results))
        rates.append(figures["messages/s"])
        costs.append(figures["broker CPU µs/message"])
    print(f"{name}: {statistics.median(rates):,.0f} answers/s ({min(rates):,.0f} to {max(rates):,.0f})")
    print(f"{name}: {statistics.median(costs):.1f} CPU µs/answer ({min(costs):.1f} to {max(costs):.1f})")


if __name__ == "__main__":
    main()
