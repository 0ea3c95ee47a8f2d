"""End-to-end latency over a sliding window (PROTOCOL 3.9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core.latency import LatencyWindow, merge, quantile_ns

WINDOW = 1000


@given(
    st.lists(st.integers(1, 10**13), min_size=1, max_size=200), st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0])
)
def test_quantiles_are_off_by_one_percent_at_most(samples: list[int], quantile: float) -> None:
    window = LatencyWindow(WINDOW, 0)
    for sample in samples:
        window.add(sample, 1)
    samples.sort()
    # Either side of the exact rank, since rank × quantile may be rounded.
    rank = len(samples) * quantile
    low = samples[max(0, int(rank - 0.001) - 1)]
    high = samples[min(len(samples) - 1, int(rank + 0.999))]
    assert low * 0.99 <= quantile_ns(window.buckets(1), quantile) <= high * 1.0101 + 1


@pytest.mark.parametrize(("quantile", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.01, 1)])
def test_known_quantiles(quantile: float, value: int) -> None:
    window = LatencyWindow(WINDOW, 0)
    for sample in range(1, 101):
        window.add(sample * 1_000_000, 1)
    assert quantile_ns(window.buckets(1), quantile) == pytest.approx(value * 1_000_000, rel=0.0101)


def test_nothing_has_quantile_zero() -> None:
    assert quantile_ns({}, 0.99) == 0.0


@pytest.mark.parametrize("latency", [0, 1, -5])
def test_a_wall_clock_that_stepped_back_is_no_error(latency: int) -> None:
    window = LatencyWindow(WINDOW, 0)
    window.add(latency, 1)
    assert sum(window.buckets(1).values()) == 1
    assert quantile_ns(window.buckets(1), 1.0) < 2


def _count(window: LatencyWindow, now_ns: int) -> int:
    return sum(window.buckets(now_ns).values())


def test_samples_live_for_half_a_window_to_a_whole_one() -> None:
    window = LatencyWindow(WINDOW, 0)
    window.add(5, 499)
    assert [_count(window, now_ns) for now_ns in (499, 500, 999)] == [1, 1, 1]
    window.add(5, 999)
    assert _count(window, 999) == 2
    assert [_count(window, now_ns) for now_ns in (1000, 1499, 1500)] == [1, 1, 0]


def test_a_long_silence_empties_it() -> None:
    window = LatencyWindow(WINDOW, 0)
    window.add(5, 400)
    assert _count(window, 1000) == 0
    window.add(5, 5000)
    assert _count(window, 5000) == 1


def test_memory_does_not_grow_with_samples() -> None:
    window = LatencyWindow(WINDOW, 0)
    for sample in range(1, 100_000):
        window.add(sample, 1)
    assert len(window.buckets(1)) < 700


def test_a_tiny_window_works() -> None:
    window = LatencyWindow(1, 0)
    window.add(5, 0)
    assert _count(window, 0) == 1
    assert _count(window, 5) == 0


def test_merging_adds_up() -> None:
    assert merge([{1: 2, 3: 1}, {3: 4}, {}]) == {1: 2, 3: 5}
    assert merge([]) == {}
