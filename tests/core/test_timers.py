"""Wake-ups: in order, on time, never for one that was cancelled."""

import weakref

from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core.timers import Timer, Timers


class Owner:
    """Something that is woken, notes when, and says when next."""

    def __init__(self, nexts: list[int] | None = None) -> None:
        self.woken: list[int] = []
        self.nexts = nexts or []
        self.timer = Timer(self.wake)

    def wake(self, now_ns: int) -> int:
        self.woken.append(now_ns)
        return self.nexts.pop(0) if self.nexts else 0


def test_woken_once_at_its_time() -> None:
    timers, owner = Timers(), Owner()
    timers.schedule(owner.timer, 100)
    assert timers.next_due_ns == 100
    timers.run(99)
    assert owner.woken == []
    timers.run(100)
    timers.run(101)
    assert owner.woken == [100]
    assert timers.next_due_ns == 0


def test_an_earlier_time_wins_and_a_later_one_does_not() -> None:
    timers, owner = Timers(), Owner()
    for due_ns in (100, 200, 50, 70):
        timers.schedule(owner.timer, due_ns)
    assert timers.next_due_ns == 50
    timers.run(300)
    assert owner.woken == [300]
    assert timers.next_due_ns == 0


def test_the_callback_says_when_next() -> None:
    timers, owner = Timers(), Owner([150, 160, 0])
    timers.schedule(owner.timer, 100)
    for now_ns in (100, 149, 150, 165, 1000):
        timers.run(now_ns)
    assert owner.woken == [100, 150, 165]


def test_a_next_time_in_the_past_is_not_in_this_run() -> None:
    """One that is late must not keep the loop from its other work."""
    timers, owner = Timers(), Owner([50, 60, 70])
    timers.schedule(owner.timer, 40)
    timers.run(100)
    assert owner.woken == [100]
    assert timers.next_due_ns == 101
    timers.run(101)
    assert owner.woken == [100, 101]


def test_ties_go_in_the_order_of_scheduling() -> None:
    timers = Timers()
    woken: list[int] = []
    for number in range(10):
        timers.schedule(Timer(lambda now_ns, number=number: woken.append(number) or 0), 100)  # type: ignore[misc]
    timers.run(100)
    assert woken == list(range(10))


def test_a_cancelled_timer_is_never_woken_again() -> None:
    timers, owner, other = Timers(), Owner(), Owner()
    timers.schedule(owner.timer, 100)
    timers.schedule(other.timer, 200)
    timers.cancel(owner.timer)
    assert timers.next_due_ns == 200
    timers.schedule(owner.timer, 50)
    timers.run(300)
    assert (owner.woken, other.woken) == ([], [300])


def test_cancelled_in_the_run_that_would_wake_it() -> None:
    timers, second = Timers(), Owner()

    def cancel(now_ns: int) -> int:
        timers.cancel(second.timer)
        return 0

    timers.schedule(Timer(cancel), 100)
    timers.schedule(second.timer, 100)
    timers.run(100)
    assert second.woken == []


def test_one_that_cancels_itself_is_not_scheduled_by_its_answer() -> None:
    timers = Timers()
    woken = []

    def wake(now_ns: int) -> int:
        woken.append(now_ns)
        timers.cancel(timer)
        return now_ns + 10

    timer = Timer(wake)
    timers.schedule(timer, 100)
    timers.run(100)
    timers.run(200)
    assert woken == [100]
    assert timers.next_due_ns == 0


def test_a_cancelled_timer_lets_go_of_its_owner() -> None:
    timers, owner = Timers(), Owner()
    timers.schedule(owner.timer, 10**18)
    gone = weakref.ref(owner)
    timers.cancel(owner.timer)
    del owner
    assert gone() is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["schedule", "schedule", "cancel", "run"]), st.integers(0, 4), st.integers(1, 40)),
        max_size=60,
    )
)
def test_against_a_dict(steps: list[tuple[str, int, int]]) -> None:
    timers = Timers()
    owners = [Owner() for _ in range(5)]
    due: dict[int, int] = {}
    alive = set(range(5))
    now_ns = 0
    for action, number, amount in steps:
        if action == "schedule" and number in alive:
            due[number] = min(due.get(number, now_ns + amount), now_ns + amount)
            timers.schedule(owners[number].timer, now_ns + amount)
        elif action == "cancel":
            timers.cancel(owners[number].timer)
            alive.discard(number)
            due.pop(number, None)
        elif action == "run":
            now_ns += amount
            before = [len(owner.woken) for owner in owners]
            timers.run(now_ns)
            woken = {at for at, owner in enumerate(owners) if len(owner.woken) > before[at]}
            assert woken == {at for at, due_ns in due.items() if due_ns <= now_ns}
            assert all(len(owner.woken) <= before[at] + 1 for at, owner in enumerate(owners))
            for at in woken:
                del due[at]
        assert timers.next_due_ns == min(due.values(), default=0)
