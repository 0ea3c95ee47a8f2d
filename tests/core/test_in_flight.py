"""What one consumer holds, against a naive model: nothing expires early, nothing late, nothing twice."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pynsqd.core.batch import Batch
from pynsqd.core.in_flight import Delivery, InFlight
from pynsqd.wire.encoder import message_frames

TIMEOUT = 100
CEILING = 250


def _frames(ids: list[bytes]) -> bytes:
    return message_frames(ids, [b"body of " + one for one in ids], 1)


def _batch(ids: list[bytes], position: int = 7) -> Batch:
    return Batch(ids, _frames(ids), position)


def _id(number: int) -> bytes:
    return b"%016x" % number


@dataclass
class Model:
    """The slow way: a list of (id, delivered, deadline), looked through each time."""

    held: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def due(self, now_ns: int) -> set[bytes]:
        return {one for one, (_, deadline_ns) in self.held.items() if deadline_ns <= now_ns}

    def next_ns(self) -> int:
        return min((deadline_ns for _, deadline_ns in self.held.values()), default=0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["deliver", "finish", "touch", "touch", "remove", "expire", "wait", "wait", "run"]),
        st.integers(0, 12),
        st.integers(1, 60),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(STEPS, st.sampled_from([TIMEOUT, TIMEOUT + 20, CEILING]))
@example([("deliver", 0, 1), ("wait", 0, 10), ("deliver", 0, 1), ("wait", 0, 10), ("touch", 0, 1)], TIMEOUT)
@example([("deliver", 0, 1), ("wait", 0, 30), ("deliver", 0, 1), ("wait", 0, 20), ("touch", 0, 1)], TIMEOUT + 20)
def test_against_the_model(steps: list[tuple[str, int, int]], ceiling: int) -> None:
    flight, model = InFlight(), Model()
    now_ns, serial = 1000, 0
    for action, number, amount in steps:
        known = sorted(model.held)
        one = known[number % len(known)] if known and number < 11 else _id(10_000 + number)
        if action == "wait":
            now_ns += amount
        elif action == "deliver":
            ids = [_id(serial + offset) for offset in range(number % 4 + 1)]
            serial += len(ids)
            flight.add(_batch(ids), now_ns, TIMEOUT)
            model.held |= dict.fromkeys(ids, (now_ns, now_ns + TIMEOUT))
        elif action == "finish":
            assert flight.finish([one]) == int(one in model.held)
            model.held.pop(one, None)
        elif action == "run":
            ids = [*known[:number], *([_id(99_999)] if amount % 2 else []), *known[number : number + 3], *known[:2]]
            good = 0
            for each in ids:
                if model.held.pop(each, None) is None:
                    break
                good += 1
            assert flight.finish(ids) == good
        elif action == "remove":
            assert (one in flight.entries) == (one in model.held)
            if one in model.held:
                assert flight.entries.pop(one).frame(one) == _frames([one])
                del model.held[one]
        elif action == "touch":
            deadline_ns = flight.touch(one, now_ns, TIMEOUT, ceiling)
            if one in model.held:
                delivered_ns, _ = model.held[one]
                model.held[one] = (delivered_ns, min(now_ns + TIMEOUT, delivered_ns + ceiling))
                assert deadline_ns == model.held[one][1]
            else:
                assert deadline_ns == 0
        else:
            _expire(flight, model, now_ns)
        assert len(flight) == len(model.held)
        # It may be woken too early, for nothing; never too late.
        assert flight.next_deadline_ns() <= model.next_ns()
        assert bool(flight.next_deadline_ns()) == bool(model.held)
    while model.held:
        now_ns = max(now_ns, flight.next_deadline_ns())
        _expire(flight, model, now_ns)
    assert flight.next_deadline_ns() == 0


def _expire(flight: InFlight, model: Model, now_ns: int) -> None:
    expired = flight.expire(now_ns)
    ids = _ids(expired)
    assert set(ids) == model.due(now_ns)
    assert len(ids) == len(set(ids))
    for one in ids:
        del model.held[one]


def _ids(gone: list[tuple[bytes, Delivery]]) -> list[bytes]:
    """The ids of what was dropped, each with the right frame."""
    assert [delivery.frame(one) for one, delivery in gone] == [_frames([one]) for one, _ in gone]
    return [one for one, _ in gone]


def test_expiry_is_in_the_order_of_delivery() -> None:
    flight = InFlight()
    for number in range(5):
        ids = [_id(number * 10 + offset) for offset in range(3)]
        flight.add(_batch(ids), 1000 + number, TIMEOUT)
    assert flight.expire(1099) == []
    assert _ids(flight.expire(1103)) == [_id(n * 10 + o) for n in range(4) for o in range(3)]
    assert flight.next_deadline_ns() == 1104


def test_a_message_that_came_again_has_its_new_deadline() -> None:
    """Touched to its ceiling, requeued, delivered again: the old ceiling says nothing about the new delivery."""
    flight = InFlight()
    flight.add(_batch([_id(1)]), 1000, TIMEOUT)
    for now_ns in (1090, 1180):
        flight.touch(_id(1), now_ns, TIMEOUT, CEILING)
    del flight.entries[_id(1)]
    flight.add(_batch([_id(1)]), 1200, TIMEOUT)
    assert flight.expire(1299) == []
    assert len(flight.expire(1300)) == 1


def test_clear_gives_back_what_was_held_oldest_first() -> None:
    flight = InFlight()
    ids = [_id(number) for number in range(6)]
    flight.add(_batch(ids[:4]), 1000, TIMEOUT)
    flight.add(_batch(ids[4:]), 1001, TIMEOUT)
    flight.finish([ids[1]])
    flight.touch(ids[0], 1002, TIMEOUT, CEILING)
    assert _ids(flight.clear()) == [ids[2], ids[3], ids[4], ids[5], ids[0]]
    assert (len(flight), flight.next_deadline_ns(), flight.expire(10**9), flight.clear()) == (0, 0, [], [])


def test_what_went_out_together_is_told_together() -> None:
    """For a checkpoint: position, freshness and the ids that are still there."""
    flight = InFlight()
    ids = [_id(number) for number in range(7)]
    flight.add(_batch(ids[:4], 100), 1000, TIMEOUT)
    flight.add(Batch(ids[4:], _frames(ids[4:]), 200, fresh=False), 1001, TIMEOUT)
    flight.finish([ids[1], ids[5]])
    flight.touch(ids[2], 1002, TIMEOUT, CEILING)
    told = [(delivery.position, delivery.fresh, group) for delivery, group in flight.by_delivery()]
    assert told == [(100, True, [ids[0], ids[3]]), (200, False, [ids[4], ids[6]]), (100, True, [ids[2]])]


def _memory_after(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ceiling", [TIMEOUT, CEILING])
def test_touching_without_end_costs_no_memory(ceiling: int) -> None:
    """A client may touch a hundred thousand times a second for as long as --max-msg-timeout."""
    flight = InFlight()
    flight.add(_batch([_id(1)]), 1000, TIMEOUT)

    def touch() -> None:
        for step in range(5_000):
            assert flight.touch(_id(1), 1000 + step * 99 // 5_000, TIMEOUT, ceiling)
        for _ in range(5_000):
            assert flight.touch(_id(1), 1198, TIMEOUT, ceiling)

    assert _memory_after(touch) < 30_000
    assert len(flight) == 1


@pytest.mark.parametrize("ceiling", [TIMEOUT, TIMEOUT + 1])
@pytest.mark.parametrize("again", [False, True])
def test_what_was_touched_and_is_gone_costs_no_memory(again: bool, ceiling: int) -> None:
    """A client may ask for (nearly) --max-msg-timeout as its timeout, and touch each of its messages once."""
    flight = InFlight()

    def work() -> None:
        for number in range(5_000):
            one = _id(0 if again else number)
            flight.add(_batch([one]), 1000 + number, TIMEOUT)
            assert flight.touch(one, 1001 + number, TIMEOUT, ceiling)
            if again:
                del flight.entries[one]
            else:
                assert flight.finish([one]) == 1

    assert _memory_after(work) < 30_000
    assert len(flight) == 0
