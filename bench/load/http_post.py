"""POST /pub from ten connections: by wrk where it is installed, else by a generator of our own, which is slower."""

from __future__ import annotations

import re
import select
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from load.broker import Broker
from load.failed import Failed
from load.processes import Job, Start, run
from load.row import Figures

BODY_SIZE: Final = 356
CONNECTIONS: Final = 10
THREADS: Final = 2  # wrk's own default
SECONDS: Final = 3


def tool() -> str:
    """What makes the HTTP load here."""
    return f"wrk -t{THREADS} -c{CONNECTIONS}" if shutil.which("wrk") else "the own generator, as wrk is missing"


def measure(broker: Broker, keep_alive: bool) -> Figures:
    """Rate and broker CPU of `SECONDS` of POSTs to one topic."""
    with broker.topic() as topic:
        path = f"/pub?topic={topic}"
        job = _wrk(broker, path, keep_alive) if shutil.which("wrk") else _own(broker, path, keep_alive)
        posted = run(broker, job)
        requests, seconds = posted.results[0]
        return posted.rates(requests, seconds)


def _wrk(broker: Broker, path: str, keep_alive: bool) -> Job[tuple[int, float]]:
    url = "http://{}:{}".format(*broker.http) + path
    options = [f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{SECONDS}s", f"-s{Path(__file__).with_name('post.lua')}"]
    if not keep_alive:
        options.append("-HConnection: close")

    def job(start: Start) -> tuple[int, float]:
        start()
        done = subprocess.run(["wrk", *options, url, "--", str(BODY_SIZE)], capture_output=True, text=True, check=False)
        total = re.search(r"total requests=(\d+) us=(\d+) failed=(\d+)", done.stdout)
        if not total or int(total[3]):
            raise Failed(f"wrk: {done.stdout} {done.stderr}")
        return int(total[1]), int(total[2]) / 1e6

    return job


def _own(broker: Broker, path: str, keep_alive: bool) -> Job[tuple[int, float]]:
    close = "" if keep_alive else "Connection: close\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\n{close}Content-Length: {BODY_SIZE}\r\n\r\n"
    request = head.encode() + b"x" * BODY_SIZE

    def job(start: Start) -> tuple[int, float]:
        poller = select.epoll()
        connections: dict[int, socket.socket] = {}

        def post_on_new_connection() -> None:
            connection = socket.create_connection(broker.http)
            connections[connection.fileno()] = connection
            poller.register(connection, select.EPOLLIN)
            connection.sendall(request)

        start()
        requests, began = 0, time.monotonic()
        for _ in range(CONNECTIONS):
            post_on_new_connection()
        while time.monotonic() < began + SECONDS:
            for descriptor, _ in poller.poll():
                connection = connections[descriptor]
                answer = connection.recv(4096)  # both brokers send an answer in one write
                if not (answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nOK")):
                    raise Failed(f"POST {path} answered {answer!r}")
                requests += 1
                if keep_alive:
                    connection.sendall(request)
                else:
                    del connections[descriptor]
                    connection.close()
                    post_on_new_connection()
        return requests, time.monotonic() - began

    return job
