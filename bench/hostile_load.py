"""Does a node stay flat under what strangers do? pynsqd only; no row of the table, since it takes minutes.

1. Ten thousand idle connections, which answer their heartbeats, plus 20,000 messages a second, published by the clock
   and consumed: RSS, CPU and latency, a line per part of the time.
2. Two thousand connections a second that come, say something and go: RSS, open files and the latency of /ping.

`--seconds` and `--churn-seconds` say how long; `--idle`, `--rate` and `--churn-rate` how much.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from load.broker import PYNSQD, Address, Broker
from load.failed import Failed
from load.percentile import percentile_ms
from load.wire import BODY, IDENTIFY, OK, Consumer, connect, expect_ok, mpub, send_ready, sized, subscribe

PARTS = 10  # lines of each table
BATCH_S = 0.01
DUE = struct.Struct(">q")
DUE_IN_FRAME = struct.Struct(f">34xq{len(BODY) - 8}x")
HEARTBEAT = b"_heartbeat_"
CONTEXT = multiprocessing.get_context("fork")
QUIET = ("--max-heartbeat-interval=2h",)  # so that the consumer, which reads by stride, gets messages only
VISITS = (b"", b"  V2NOP\n", b"  V2PUB churn\n\0\0\0\1x", b"  V2PUB churn\n\0\0\1\0half", b"garbage")


def main() -> None:
    """Run both parts and print their tables."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    if most_files < arguments.idle + 1000:
        sys.exit(f"{arguments.idle} connections need a limit of open files above {most_files} (ulimit -n)")
    with PYNSQD.started(QUIET) as broker:
        idle_and_busy(broker, arguments.idle, arguments.rate, arguments.seconds)
    with PYNSQD.started(()) as broker:
        churn(broker, arguments.churn_rate, arguments.churn_seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of the first part (default 600)")
    parser.add_argument("--churn-seconds", type=float, default=60, help="of the second part (default 60)")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections (default 10,000)")
    parser.add_argument("--rate", type=int, default=20_000, help="messages a second (default 20,000)")
    parser.add_argument("--churn-rate", type=int, default=2_000, help="short connections a second (default 2,000)")
    return parser.parse_args()


def idle_and_busy(broker: Broker, idle: int, rate: int, seconds: float) -> None:
    """Print a line for each tenth of the time: what it took, and how long messages were under way."""
    with broker.topic("channel") as topic:
        before = broker.rss_bytes()
        sleepers = _Process(lambda pipe: _sleep_on(pipe, broker.tcp, idle))
        sleepers.receive()
        print(f"\n{idle:,} idle connections: {(broker.rss_bytes() - before) / idle:,.0f} bytes of RSS each")
        print(f"\nand {rate:,} messages of {len(BODY)} bytes a second, for {seconds:.0f} s\n")
        _head("until, s", "messages", "RSS, MB", "CPU, cores", "p50, ms", "p99, ms", "max, ms")
        part_s = seconds / PARTS
        consumer = _Process(lambda pipe: _consume(pipe, broker.tcp, topic, part_s, int(rate * seconds)))
        consumer.receive()
        publisher = _Process(lambda pipe: _publish(pipe, broker.tcp, topic, rate, seconds))
        cpu_s, then = broker.cpu_s(), time.monotonic()
        for part in range(PARTS):
            count, p50, p99, most = consumer.receive()
            now, used_s = time.monotonic(), broker.cpu_s()
            cores = (used_s - cpu_s) / (now - then)
            _line(part_s * (part + 1), count, broker.rss_bytes() / 1e6, cores, p50, p99, most)
            cpu_s, then = used_s, now
        late_ms = publisher.receive()
        lost = sleepers.ask()
        print(f"\nThe publisher was {late_ms:.1f} ms late at worst; {lost} idle connections were closed.")
        for process in (publisher, consumer, sleepers):
            process.end()
        if lost:
            raise Failed(f"{lost} idle connections were closed")


def churn(broker: Broker, rate: int, seconds: float) -> None:
    """Print a line for each tenth of the time: what is left of the connections that came and went."""
    print(f"\n{rate:,} short connections a second, for {seconds:.0f} s\n")
    _head("until, s", "connections", "RSS, MB", "open files", "CPU, cores", "/ping, ms")
    broker.wait_for_ping(5)
    with broker.topic("channel"):
        visitors = [_Process(lambda pipe: _visit(pipe, broker.tcp, rate / 2, seconds)) for _ in range(2)]
        cpu_s, then = broker.cpu_s(), time.monotonic()
        for part in range(PARTS):
            time.sleep(max(0.0, seconds / PARTS - (time.monotonic() - then)))
            asked = time.monotonic()
            broker.call("GET", "/ping")
            ping_ms = (time.monotonic() - asked) * 1e3
            now, used_s = time.monotonic(), broker.cpu_s()
            came = sum(visitor.ask() for visitor in visitors)
            files = len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))
            cores = (used_s - cpu_s) / (now - then)
            _line(seconds / PARTS * (part + 1), came, broker.rss_bytes() / 1e6, files, cores, ping_ms)
            cpu_s, then = used_s, now
        for visitor in visitors:
            visitor.end()


def _head(*names: str) -> None:
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")


def _line(*figures: float) -> None:
    print(f"| {' | '.join(f'{one:,}' if isinstance(one, int) else f'{one:,.2f}' for one in figures)} |", flush=True)


class _Process:
    """Part of the load, in a process of its own, with a pipe."""

    def __init__(self, job: Callable[[Connection], None]) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=job, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def receive(self) -> Any:
        """Wait for what it tells."""
        try:
            return self._pipe.recv()
        except EOFError:
            raise Failed("part of the load has died") from None

    def ask(self) -> Any:
        """Have it tell how it stands."""
        self._pipe.send(None)
        return self.receive()

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


def _sleep_on(pipe: Connection, address: Address, count: int) -> None:
    """Connect, then answer heartbeats for ever; tells when all are there, and when asked how many were closed."""
    poller = select.epoll()
    sleepers = {}
    for _ in range(count):
        one = connect(address)
        one.sendall(b"IDENTIFY\n" + sized(IDENTIFY))
        expect_ok(one)
        sleepers[one.fileno()] = one
        poller.register(one, select.EPOLLIN)
    poller.register(pipe, select.EPOLLIN)
    pipe.send(count)
    lost = 0
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == pipe.fileno():
                pipe.recv()
                pipe.send(lost)
            elif HEARTBEAT in sleepers[descriptor].recv(4096):
                sleepers[descriptor].sendall(b"NOP\n")
            else:
                lost += 1
                poller.unregister(descriptor)


def _publish(pipe: Connection, address: Address, topic: str, rate: int, seconds: float) -> None:
    """Publish by the clock, a batch every 10 ms; tells in the end how many ms it was late at worst."""
    connection = connect(address)
    batch = int(rate * BATCH_S)
    start = time.monotonic()
    late_s = 0.0
    for number in range(int(seconds / BATCH_S)):
        due = start + number * BATCH_S
        time.sleep(max(0.0, due - time.monotonic()))
        late_s = max(late_s, time.monotonic() - due)
        body = DUE.pack(int(due * 1e9)) + BODY[DUE.size :]
        connection.sendall(mpub(topic, [body] * batch))
        _answered(connection)
    pipe.send(late_s * 1e3)


def _answered(connection: socket.socket) -> None:
    """Read an OK, and answer a heartbeat that stands before it."""
    while (answer := connection.recv(len(OK), socket.MSG_WAITALL)) != OK:
        rest = connection.recv(4 + 4 + len(HEARTBEAT) - len(OK), socket.MSG_WAITALL)
        if not (answer + rest).endswith(HEARTBEAT):
            raise Failed(f"the broker answered {answer + rest!r}")
        connection.sendall(b"NOP\n")


def _consume(pipe: Connection, address: Address, topic: str, part_s: float, messages: int) -> None:
    """Consume, and tell after each part of the time how many came and how long they were under way, in ms."""
    connection = subscribe(address, topic, "channel", IDENTIFY.replace(b"60000", b"7200000"))
    consumer = Consumer(connection)
    pipe.send("ready")
    send_ready(connection)
    latencies_ns: list[int] = []
    frames = consumer.take()
    end, told = time.monotonic() + part_s, 0
    while True:
        now_ns = time.monotonic_ns()
        latencies_ns += [now_ns - due_ns for (due_ns,) in DUE_IN_FRAME.iter_unpack(frames)]
        messages -= consumer.finish(frames)
        if now_ns >= end * 1e9 or (messages <= 0 and told == PARTS - 1):
            spread = (percentile_ms(latencies_ns, 50), percentile_ms(latencies_ns, 99), max(latencies_ns) / 1e6)
            pipe.send((len(latencies_ns), *spread))
            latencies_ns.clear()
            end, told = end + part_s, told + 1
        if told == PARTS:
            return
        frames = consumer.take()


def _visit(pipe: Connection, address: Address, rate: float, seconds: float) -> None:
    """Connect, say something and leave, by the clock; tells when asked how often so far."""
    start = time.monotonic()
    number = 0
    while time.monotonic() - start < seconds:
        with socket.create_connection(address) as visitor, suppress(ConnectionError):
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", number % 2, 0))
            visitor.send(VISITS[number % len(VISITS)])
        number += 1
        if pipe.poll(max(0.0, start + number / rate - time.monotonic())):
            pipe.recv()
            pipe.send(number)
    while pipe.poll(None):
        pipe.recv()
        pipe.send(number)


if __name__ == "__main__":
    main()
