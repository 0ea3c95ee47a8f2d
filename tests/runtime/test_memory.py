"""runtime/memory: figures of this process under nsqd's names."""

import gc

import psutil

from pynsqd.runtime.memory import memory_figures


def test_names_order_and_sign() -> None:
    figures = memory_figures()
    assert list(figures) == [
        "heap_objects",
        "heap_idle_bytes",
        "heap_in_use_bytes",
        "heap_released_bytes",
        "gc_pause_usec_100",
        "gc_pause_usec_99",
        "gc_pause_usec_95",
        "next_gc_bytes",
        "gc_total_runs",
    ]
    assert all(isinstance(value, int) and value >= 0 for value in figures.values())


def test_figures_are_of_this_process() -> None:
    before = memory_figures()
    kept = [bytes([number % 256]) * 1_000_000 for number in range(300)]
    gc.collect()
    after = memory_figures()
    assert after["heap_in_use_bytes"] - before["heap_in_use_bytes"] > 20_000_000, len(kept)
    assert abs(after["heap_in_use_bytes"] - psutil.Process().memory_info().rss) < 10_000_000
    assert after["gc_total_runs"] > before["gc_total_runs"]
