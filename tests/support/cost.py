"""Counts what a piece of work costs, in figures that no other load on the machine changes."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pynsqd

_OURS = str(Path(pynsqd.__file__).parent)


def bytecodes(work: Callable[[], object]) -> int:
    """Return how many bytecodes of pynsqd ``work`` runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()  # coverage's, perhaps
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def blocks(work: Callable[[], object]) -> int:
    """Return how many blocks of memory are held after ``work`` that were not before."""
    before = sys.getallocatedblocks()
    work()
    return sys.getallocatedblocks() - before
