"""A writer that nobody can hold up, on real pipes."""

import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator

import pytest

from pynsqd.runtime.stderr import StderrWriter

DEADLINE_S = 30.0


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.size = fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)

    def fill(self) -> int:
        """Fill it to the last byte without making its shared description non-blocking for good."""
        os.set_blocking(self.writer, False)
        filled = 0
        try:
            while True:
                filled += os.write(self.writer, b"#")
        except BlockingIOError:
            os.set_blocking(self.writer, True)
            return filled

    def read_until(self, wanted: bytes) -> bytes:
        """Read until ``wanted`` has come."""
        seen = b""
        end = time.monotonic() + DEADLINE_S
        while wanted not in seen:
            assert select.select([self.reader], [], [], max(end - time.monotonic(), 0))[0], f"no {wanted!r} in {seen!r}"
            seen += os.read(self.reader, 65536)
        return seen


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reader)
    os.close(made.writer)


def log_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "log"]


def test_lines_come_in_order_and_at_once(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.writer, lambda lost: None)
    writer.write("first \u00e9")
    assert pipe.read_until(b"\n") == "first \u00e9\n".encode()  # before anything else is written or closed
    writer.write("second")
    writer.write("third \udcff")  # a byte of a file name that is no text
    writer.close(DEADLINE_S)
    assert pipe.read_until(b"\\udcff\n") == b"second\nthird \\udcff\n"
    assert not log_threads()


def test_a_full_pipe_holds_nobody_up_and_what_was_lost_is_told(pipe: Pipe) -> None:
    lost: list[int] = []

    def on_dropped(lines: int) -> None:
        lost.append(lines)
        writer.write("lost some")

    pipe.fill()
    writer = StderrWriter(pipe.writer, on_dropped)
    line = "x" * 1023

    # Three times what may wait; a writer that waits for the pipe never gets past this.
    def write_all() -> None:
        for _ in range(768):
            writer.write(line)

    done = threading.Thread(target=write_all, daemon=True)
    done.start()
    done.join(DEADLINE_S)
    assert not done.is_alive(), "write() waited for a pipe that nobody reads"

    seen = pipe.read_until(b"lost some\n")
    writer.write("afterwards")
    seen += pipe.read_until(b"afterwards\n")
    writer.close(DEADLINE_S)
    whole = seen.count(line.encode() + b"\n")
    assert whole + sum(lost) == 768
    assert 256 <= whole <= 512  # bounded: what waits, and what the thread had already taken


def test_the_descriptor_stays_blocking_for_those_who_share_it(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.writer, lambda lost: None)
    writer.write("line")
    pipe.read_until(b"line\n")
    assert os.get_blocking(pipe.writer)
    writer.close(DEADLINE_S)


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = StderrWriter(pipe.writer, lambda lost: None)
    line = "y" * 9999
    writer.write(line)
    writer.write("end")
    seen = pipe.read_until(b"end\n")
    writer.close(DEADLINE_S)
    assert seen == line.encode() + b"\nend\n"


def test_closing_does_not_wait_for_a_full_pipe(pipe: Pipe) -> None:
    pipe.fill()
    writer = StderrWriter(pipe.writer, lambda lost: None)
    writer.write("never read")
    closing = threading.Thread(target=writer.close, args=[0.05])
    closing.start()
    closing.join(DEADLINE_S)
    closed_although_full = not closing.is_alive()
    pipe.read_until(b"never read\n")  # lets the thread go
    (thread,) = log_threads() or [threading.Thread()]
    if thread.ident:
        thread.join(DEADLINE_S)
    closing.join(DEADLINE_S)
    assert closed_although_full


def test_a_reader_that_is_gone_is_survived() -> None:
    pipe = Pipe()
    os.close(pipe.reader)
    writer = StderrWriter(pipe.writer, lambda lost: None)
    writer.write("nobody")
    writer.write("nobody")
    writer.close(DEADLINE_S)
    assert not log_threads()
    os.close(pipe.writer)
