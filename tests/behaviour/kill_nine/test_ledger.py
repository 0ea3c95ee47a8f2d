"""Histories made by hand: each broken promise is found, and nothing else is taken for one."""

import pytest

from tests.behaviour.kill_nine.ledger import Ledger, Limits
from tests.behaviour.kill_nine.records import FIN, MS, REQ, Copy, Event, Outcome, Publish

WINDOW_MS = 350
START_MS = 1000  # of the first life; nothing happens at 0, which stands for "not yet"


class Story:
    """A ledger of one topic with the channel "c"; all times are milliseconds after START_MS."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.ledger = Ledger({"t": ["c"], "u": ["c"]}, limits)
        self.copies: dict[int, Copy] = {}
        self.begin(0)

    def begin(self, at_ms: int) -> None:
        self.ledger.begin_life(_ns(at_ms))

    def publish(self, at_ms: int, count: int = 1, *, delay_ms: int = 0, acknowledged: bool = True) -> Publish:
        verb = "MPUB" if count > 1 else "DPUB" if delay_ms else "PUB"
        publish = self.ledger.publish("t", count, verb, publisher="p", now_ns=_ns(at_ms), delay_ms=delay_ms)
        if acknowledged:
            self.ledger.acknowledge(publish, _ns(at_ms + 1))
        return publish

    def deliver(self, at_ms: int, number: int = 0, attempts: int = 1) -> None:
        identity = (b"%016d" % number, number)
        copy = self.ledger.deliver(("t", "c"), number, attempts, identity, consumer="k", now_ns=_ns(at_ms))
        if copy is not None:
            self.copies[number] = copy

    def act(
        self,
        verb: str,
        at_ms: int,
        number: int = 0,
        *,
        value: int = 0,
        receipt_ms: int = 0,
        outcome: Outcome = Outcome.DONE,
    ) -> Event:
        """Send a command; its receipt comes 1 ms later if nothing else is said."""
        copy = self.copies[number]
        event = self.ledger.act(copy, verb, value, "k", _ns(at_ms))
        if outcome is not Outcome.UNKNOWN:
            self.ledger.settle_act(copy, event, outcome, _ns(receipt_ms or at_ms + 1))
        return event

    def finish(self, at_ms: int, number: int = 0, *, receipt_ms: int = 0, outcome: Outcome = Outcome.DONE) -> None:
        self.act(FIN, at_ms, number, receipt_ms=receipt_ms, outcome=outcome)

    def end(self, at_ms: int, *, clean: bool = False, lag_ms: int = 0) -> None:
        self.ledger.end_life(_ns(at_ms), clean=clean, lag_ns=lag_ms * MS)

    def restart(self, at_ms: int, *, clean: bool = False, lag_ms: int = 0) -> None:
        self.end(at_ms, clean=clean, lag_ms=lag_ms)
        self.begin(at_ms)

    def settle(self, at_ms: int) -> None:
        self.end(at_ms, clean=True)
        self.ledger.settle(_ns(at_ms))

    @property
    def kinds(self) -> list[str]:
        return [violation.kind for violation in self.ledger.violations]


def _ns(ms: int) -> int:
    return (START_MS + ms) * MS


@pytest.fixture
def story() -> Story:
    return Story()


# -- 1: nothing acknowledged is lost


def test_what_was_delivered_and_finished_is_settled(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(21)
    story.settle(500)
    assert story.kinds == []
    assert story.ledger.tally.settled == 1


def test_acknowledged_and_never_delivered_is_lost(story: Story) -> None:
    story.publish(10)
    story.settle(500)
    assert story.kinds == ["lost"]
    assert "message 0 was acknowledged and never came" in story.ledger.violations[0].text


def test_unacknowledged_need_not_come(story: Story) -> None:
    story.publish(10, acknowledged=False)
    story.settle(500)
    assert story.kinds == []


def test_unacknowledged_may_come(story: Story) -> None:
    story.publish(10, acknowledged=False)
    story.restart(20)
    story.deliver(30)
    story.finish(31)
    story.settle(500)
    assert story.kinds == []


@pytest.mark.parametrize("outcome", [None, Outcome.FAILED])
def test_delivered_and_not_finished_has_to_come_again(story: Story, outcome: Outcome | None) -> None:
    story.publish(10)
    story.deliver(20)
    if outcome is not None:
        story.finish(21, outcome=outcome)
    story.restart(30)
    story.settle(500)
    assert story.kinds == ["lost"]


def test_requeued_has_to_come_again(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.act(REQ, 21)
    story.settle(500)
    assert story.kinds == ["lost"]


def test_a_finish_without_a_receipt_may_have_worked(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(21, outcome=Outcome.UNKNOWN)
    story.restart(30)
    story.settle(500)
    assert story.kinds == []


def test_each_channel_gets_its_own() -> None:
    ledger = Ledger({"t": ["c", "d"]})
    ledger.begin_life(_ns(0))
    publish = ledger.publish("t", 1, "PUB", publisher="p", now_ns=_ns(1))
    ledger.acknowledge(publish, _ns(2))
    copy = ledger.deliver(("t", "c"), 0, 1, (b"0", 0), consumer="k", now_ns=_ns(3))
    assert copy is not None
    ledger.settle_act(copy, ledger.act(copy, FIN, 0, "k", _ns(4)), Outcome.DONE, _ns(5))
    ledger.end_life(_ns(500), clean=True)
    ledger.settle(_ns(500))
    assert [violation.text.splitlines()[0] for violation in ledger.violations] == [
        "t/d message 0 was acknowledged and never came"
    ]


@pytest.mark.parametrize(("came", "kinds"), [(0, []), (2, ["torn"]), (3, [])])
def test_an_unacknowledged_mpub_comes_wholly_or_not(story: Story, came: int, kinds: list[str]) -> None:
    story.publish(10, 3, acknowledged=False)
    story.restart(20)
    for number in range(came):
        story.deliver(30, number)
        story.finish(31, number)
    story.settle(500)
    assert story.kinds == kinds


def test_an_acknowledged_mpub_comes_wholly(story: Story) -> None:
    story.publish(10, 3)
    for number in (0, 2):
        story.deliver(30, number)
        story.finish(31, number)
    story.settle(500)
    assert story.kinds == ["lost"]
    assert "message 1 " in story.ledger.violations[0].text


def test_what_is_not_due_stays_open(story: Story) -> None:
    story.publish(10, delay_ms=2000)
    story.settle(500)
    assert story.kinds == []
    assert story.ledger.last_due_ns == _ns(2010)
    story.begin(600)
    story.settle(3000)
    assert story.kinds == ["lost"]


def test_unfinished_are_those_that_exist_and_are_due(story: Story) -> None:
    story.publish(10)  # 0
    story.publish(10, acknowledged=False)  # 1
    story.publish(10, delay_ms=500)  # 2
    story.publish(10)  # 3
    story.publish(10, acknowledged=False)  # 4
    story.deliver(20, 3)
    story.finish(21, 3)
    story.deliver(20, 4)
    assert story.ledger.unfinished("t", "c", _ns(100)) == [0, 4]
    assert story.ledger.unfinished("t", "c", _ns(600)) == [0, 2, 4]
    assert story.ledger.undue("t", _ns(100)) == 1
    assert story.ledger.undue("t", _ns(600)) == 0


# -- 1, at every restart: what the node says it owes


def test_owed_counts_have_to_fit(story: Story) -> None:
    story.publish(10)  # 0 waits
    story.publish(10, acknowledged=False)  # 1 may exist
    for number in (2, 3, 4):
        story.publish(10)
        story.deliver(20, number)
    story.finish(21, 2)  # for good
    story.finish(950, 3)  # within the window
    story.restart(1000)
    assert story.ledger.owed("t", "c") == (2, 4)
    for owed in (2, 3, 4):
        story.ledger.check_owed("t", "c", owed)
    assert story.kinds == []
    story.ledger.check_owed("t", "c", 1)
    story.ledger.check_owed("t", "c", 5)
    assert story.kinds == ["owes too little", "owes too much"]


# -- 2: finished is finished, save for the checkpoint interval


def finished_before_kill(story: Story, age_ms: int, *, lag_ms: int = 0) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(999 - age_ms, receipt_ms=1000 - age_ms)
    story.restart(1000, lag_ms=lag_ms)
    story.deliver(1100, attempts=1)


def test_finished_long_before_a_kill_does_not_come_again(story: Story) -> None:
    finished_before_kill(story, WINDOW_MS + 1)
    story.end(1200)
    assert story.kinds == ["duplicate"]


def test_finished_just_before_a_kill_may_come_again_and_is_counted(story: Story) -> None:
    finished_before_kill(story, WINDOW_MS)
    story.end(1200)
    assert story.kinds == []
    assert story.ledger.tally.finished_again == 1
    assert story.ledger.tally.finished_again_oldest_ns == WINDOW_MS * MS


def test_our_own_lag_widens_the_window(story: Story) -> None:
    finished_before_kill(story, WINDOW_MS + 1, lag_ms=1)
    story.end(1200)
    assert story.kinds == []


def test_come_again_it_is_owed_again(story: Story) -> None:
    finished_before_kill(story, 1)
    story.settle(2000)
    assert story.kinds == ["lost"]


def test_undone_by_one_kill_it_may_come_after_the_next(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(21)
    story.restart(100)
    story.restart(5000)
    story.deliver(5100)
    story.end(5200)
    assert story.kinds == []
    assert story.ledger.tally.finished_again == 1


def test_safe_at_one_kill_it_is_safe_at_the_next(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(21)
    story.restart(1000)
    story.restart(1010)
    story.deliver(1100)
    story.end(1200)
    assert story.kinds == ["duplicate"]


def test_without_a_receipt_it_may_come_again(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(21, outcome=Outcome.UNKNOWN)
    story.restart(1000)
    story.deliver(1100)
    story.end(1200)
    assert story.kinds == []
    assert story.ledger.tally.unconfirmed_again == 1


def test_finished_does_not_come_again_in_the_same_life(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(21)
    story.deliver(30, attempts=2)
    story.end(40)
    assert story.kinds == ["duplicate"]


def test_a_delivery_between_finish_and_receipt_came_too_late(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(21, receipt_ms=30)
    story.deliver(29, attempts=2)
    story.end(40)
    assert story.kinds == ["duplicate"]


def test_it_may_have_timed_out_before_the_finish_arrived(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(1019, receipt_ms=1030)
    story.deliver(1021, attempts=2)
    story.end(2000)
    assert story.kinds == []


@pytest.mark.parametrize("came_ms", [34, 36])
def test_it_may_have_come_again_after_a_requeue_before_the_finish_arrived(story: Story, came_ms: int) -> None:
    story.publish(10)
    story.deliver(20)
    story.act(REQ, 21, value=10)
    story.finish(33, receipt_ms=36)
    story.deliver(came_ms, attempts=2)
    story.end(100)
    assert story.kinds == []


# -- 3: attempts never go down


@pytest.mark.parametrize(("attempts", "kinds"), [(1, ["attempts"]), (2, []), (3, [])])
def test_attempts_do_not_go_down_over_a_kill(story: Story, attempts: int, kinds: list[str]) -> None:
    story.publish(10)
    story.deliver(20, attempts=2)
    story.restart(100)
    story.deliver(200, attempts=attempts)
    story.end(300)
    assert story.kinds == kinds


@pytest.mark.parametrize(("attempts", "kinds"), [(1, ["attempts"]), (2, [])])
def test_attempts_count_up_over_a_clean_stop(story: Story, attempts: int, kinds: list[str]) -> None:
    story.publish(10)
    story.deliver(20)
    story.restart(100, clean=True)
    story.deliver(200, attempts=attempts)
    story.end(300)
    assert story.kinds == kinds


def test_one_kill_among_clean_stops_is_a_kill(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.restart(100)
    story.restart(200, clean=True)
    story.deliver(300)
    story.end(400)
    assert story.kinds == []


@pytest.mark.parametrize(("lag_ms", "kinds"), [(500, ["attempts"]), (501, [])])
def test_attempts_count_up_within_a_life_unless_we_could_not_look(story: Story, lag_ms: int, kinds: list[str]) -> None:
    story.publish(10)
    story.deliver(20, attempts=2)
    story.deliver(30, attempts=2)
    story.end(100, lag_ms=lag_ms)
    assert story.kinds == kinds


# -- 4: nothing comes before it is due


@pytest.mark.parametrize(("at_ms", "kinds"), [(508, ["early"]), (509, []), (510, []), (900, [])])
@pytest.mark.parametrize("acknowledged", [True, False])
@pytest.mark.parametrize("end", ["none", "kill", "clean"])
def test_deferred_comes_when_it_is_due(
    story: Story, at_ms: int, kinds: list[str], acknowledged: bool, end: str
) -> None:
    story.publish(10, delay_ms=500, acknowledged=acknowledged)
    if end != "none":
        story.restart(12, clean=end == "clean")
    story.deliver(at_ms)
    story.end(1000)
    assert story.kinds == kinds


def requeued(story: Story, *, before_kill_ms: int, outcome: Outcome = Outcome.DONE) -> None:
    story.publish(10)
    story.deliver(20)
    story.act(REQ, 999 - before_kill_ms, value=5000, outcome=outcome)


def test_requeued_comes_when_it_is_due(story: Story) -> None:
    requeued(story, before_kill_ms=0)
    story.deliver(5999, attempts=2)
    story.end(6500)
    assert story.kinds == []


def test_requeued_does_not_come_early_in_the_same_life(story: Story) -> None:
    requeued(story, before_kill_ms=0)
    story.deliver(5997, attempts=2)
    story.end(6500)
    assert story.kinds == ["early"]


def test_early_before_the_receipt_is_early(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.act(REQ, 21, value=500, receipt_ms=23)
    story.deliver(22, attempts=2)
    story.end(100)
    assert story.kinds == ["early"]


def test_a_refused_requeue_holds_nothing_back(story: Story) -> None:
    requeued(story, before_kill_ms=0, outcome=Outcome.FAILED)
    story.deliver(1001, attempts=2)
    story.end(6500)
    assert story.kinds == []


@pytest.mark.parametrize("clean", [True, False])
def test_a_requeue_survives(story: Story, clean: bool) -> None:
    requeued(story, before_kill_ms=0)
    story.restart(1000, clean=clean)
    story.restart(1010)
    story.deliver(1100, attempts=2)
    story.end(1200)
    assert story.kinds == ["early"]


def test_a_requeue_without_a_receipt_may_not_have_been_seen(story: Story) -> None:
    requeued(story, before_kill_ms=0, outcome=Outcome.UNKNOWN)
    story.restart(1000)
    story.deliver(1100, attempts=2)
    story.end(1200)
    assert story.kinds == []


# -- 5: after a clean stop all is exact


def test_nothing_finished_comes_after_a_clean_stop(story: Story) -> None:
    story.publish(10)
    story.deliver(20)
    story.finish(998)
    story.restart(1000, clean=True)
    story.deliver(1100, attempts=2)
    story.end(1200)
    assert story.kinds == ["duplicate"]


# -- and always


def test_a_message_keeps_its_id_and_timestamp(story: Story) -> None:
    story.publish(10)
    story.ledger.deliver(("t", "c"), 0, 1, (b"0", 1), consumer="k", now_ns=_ns(20))
    story.ledger.deliver(("t", "c"), 0, 2, (b"0", 2), consumer="k", now_ns=_ns(30))
    assert story.kinds == ["identity"]


@pytest.mark.parametrize(("per_topic", "kinds"), [(False, ["identity"]), (True, [])])
def test_no_two_messages_share_an_id(per_topic: bool, kinds: list[str]) -> None:
    ledger = Ledger({"t": ["c"], "u": ["c"]}, Limits(ids_per_topic=per_topic))
    ledger.begin_life(_ns(0))
    for topic in ("t", "u"):
        ledger.publish(topic, 1, "PUB", publisher="p", now_ns=_ns(1))
        ledger.deliver((topic, "c"), 0, 1, (b"same", 1), consumer="k", now_ns=_ns(2))
    assert [violation.kind for violation in ledger.violations] == kinds


@pytest.mark.parametrize("number", [0, 7])
def test_what_is_settled_or_was_never_published_does_not_come(story: Story, number: int) -> None:
    story.publish(10, acknowledged=False)
    story.settle(500)
    story.begin(600)
    story.deliver(700, number)
    assert story.kinds == ["revenant"]


def test_the_history_tells_everything_in_order(story: Story) -> None:
    story.ledger.listening(_ns(5))
    story.publish(10, 2)
    story.deliver(20, 1)
    story.act(REQ, 21, 1, value=7)
    story.restart(1000, lag_ms=3)
    story.deliver(1100, 1, attempts=1)
    story.finish(1101, 1)
    story.restart(1500, clean=True)
    assert story.ledger.history(story.copies[1]).splitlines() == [
        "    +0.0000 s life 1 begins",
        "    +0.0050 s listening",
        "    +0.0100 s MPUB of 0..1 sent by p",
        "    +0.0110 s acknowledged",
        "    +0.0200 s delivered 1 · k",
        "    +0.0210 s REQ 7 · k",
        "    +0.0220 s   REQ: done",
        "    +1.0000 s life 1 ends: SIGKILL (our own lag 3 ms)",
        "    +1.0000 s life 2 begins",
        "    +1.1000 s delivered 1 · k",
        "    +1.1010 s FIN 0 · k",
        "    +1.1020 s   FIN: done",
        "    +1.5000 s life 2 ends: SIGTERM",
        "    +1.5000 s life 3 begins",
    ]


def test_only_the_first_of_a_kind_are_told_and_all_are_counted(story: Story) -> None:
    for _ in range(30):
        story.publish(10)
    story.settle(500)
    assert story.kinds == ["lost"] * 4
    assert story.ledger.broken == {"lost": 30}
