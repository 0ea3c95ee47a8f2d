"""Message ids (PROTOCOL 1.7)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pynsqd.core.ids import IdGenerator, ids_from

TICK = 1 << 20
START = 1_700_000_000_000_000_000


@pytest.mark.parametrize("node_id", [0, 1, 1023])
def test_the_layout_is_nsqds(node_id: int) -> None:
    ids = IdGenerator(node_id).take(3, START)
    expected = ((START >> 20) - 1288834974288) << 22 | node_id << 12
    assert ids == [b"%016x" % (expected + sequence) for sequence in range(3)]
    assert all(len(one) == 16 and one == one.lower() for one in ids)


def test_the_sequence_starts_again_with_each_tick_and_goes_on_within_one() -> None:
    generator = IdGenerator(5)
    first, second = generator.take(1, START) + generator.take(1, START + TICK - START % TICK - 1)
    assert int(second, 16) == int(first, 16) + 1
    (third,) = generator.take(1, START + TICK)
    assert int(third, 16) & 0xFFF == 0
    assert int(third, 16) >> 22 == (int(first, 16) >> 22) + 1


def test_nodes_do_not_share_ids() -> None:
    assert not set(IdGenerator(1).take(5000, START)) & set(IdGenerator(2).take(5000, START))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(-20 * TICK, 20 * TICK)), max_size=12), st.integers(0, 1023))
def test_unique_and_increasing_whatever_the_clock_does(steps: list[tuple[int, int]], node_id: int) -> None:
    generator = IdGenerator(node_id)
    wall_ns = START
    ids: list[bytes] = []
    for count, step_ns in steps:
        wall_ns += step_ns
        taken = generator.take(count, wall_ns)
        assert len(taken) == count
        ids += taken
    assert ids == sorted(set(ids))
    assert all(int(one, 16) >> 12 & 0x3FF == node_id for one in ids)


def test_a_batch_larger_than_a_tick_goes_on_in_the_next() -> None:
    ids = IdGenerator(7).take(10_000, START)
    assert ids == sorted(set(ids))
    assert [len({one for one in ids if one[:13] == prefix}) for prefix in sorted({one[:13] for one in ids})] == [
        4096,
        4096,
        1808,
    ]


def test_time_borrowed_is_given_back() -> None:
    generator = IdGenerator(7)
    generator.take(20_000, START)
    (later,) = generator.take(1, START + 100 * TICK)
    assert int(later, 16) >> 22 == ((START + 100 * TICK) >> 20) - 1288834974288
    assert int(later, 16) & 0xFFF == 0


def test_a_clock_before_the_epoch() -> None:
    ids = IdGenerator(1).take(2, 0)
    assert ids == [b"%016x" % (1 << 12), b"%016x" % ((1 << 12) + 1)]


@given(st.integers(0, 9000), st.integers(1, 13_000), st.integers(0, 1023))
def test_ids_from_the_first_are_those_taken(before: int, count: int, node_id: int) -> None:
    generator = IdGenerator(node_id)
    generator.take(before, START)
    taken = generator.take(count, START)
    assert ids_from(taken[0], count) == taken


def test_ids_from_goes_on_in_the_next_tick() -> None:
    generator = IdGenerator(1023)
    generator.take(4090, START)
    taken = generator.take(4096 + 20, START)
    assert ids_from(taken[0], len(taken)) == taken
