"""What the process uses, under the names of nsqd's memory statistics (PROTOCOL 2.5, 3.11)."""

import gc
import os
import resource
import sys
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")


def memory_figures() -> dict[str, int]:
    """Return the figures in nsqd's order. Sizes are bytes.

    Python's nearest: "in use" is resident memory, "idle" and "released" is by how much it was once larger, objects are
    the blocks that the interpreter has allocated. How long collections pause the process and when the next one is due
    Python does not say; those are 0.
    """
    peak = _peak_bytes()
    resident = resident_bytes()
    given_back = max(0, peak - resident)
    return {
        "heap_objects": sys.getallocatedblocks(),
        "heap_idle_bytes": given_back,
        "heap_in_use_bytes": resident,
        "heap_released_bytes": given_back,
        "gc_pause_usec_100": 0,
        "gc_pause_usec_99": 0,
        "gc_pause_usec_95": 0,
        "next_gc_bytes": 0,
        "gc_total_runs": sum(generation["collections"] for generation in gc.get_stats()),
    }


def resident_bytes() -> int:
    """Return the resident memory of the process, in bytes."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc: the peak is all that is known
        return _peak_bytes()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
