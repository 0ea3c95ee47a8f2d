"""What must hold of a node that is killed again and again. Pure: times come in, nothing is waited for.

Facts are noted while the node lives and judged when it has ended, because only then is the outcome of every command
known. A FIN, REQ or TOUCH is answered only when it fails, so consumers send a receipt request behind it (see
``consumers``): a command without an error before its receipt was carried out, and that before the receipt came.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from tests.behaviour.kill_nine.records import (
    DELIVERED,
    FIN,
    MS,
    REQ,
    SECOND,
    TOUCH,
    Copy,
    Event,
    Finish,
    Life,
    Outcome,
    Publish,
    Tally,
    Violation,
)

_SHOWN: Final = 4  # of each kind


@dataclass(frozen=True)
class Limits:
    """What the node may do, and how exactly we can tell."""

    checkpoint_ns: int = 100 * MS  # a crash may undo what was finished this long before it
    # A checkpoint has to be written after its interval, by a process that waits for a processor like all others. Added
    # to it is the time for which our own loop stood still in that life, which mostly tells how busy the machine was: of
    # 2,616 kills beside a load of 5 on two processors one came 292 ms after the last checkpoint, and that was 30 ms.
    slack_ns: int = 250 * MS
    early_ns: int = 1 * MS  # due times are kept as time of day, and clocks are read twice to convert them
    msg_timeout_ns: int = 1 * SECOND
    ids_per_topic: bool = False  # nsqd gives two topics the same id at times


class Ledger:
    """Takes the facts of one node's lives and finds the ``violations``."""

    def __init__(self, topics: dict[str, list[str]], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.lives: list[Life] = []
        self.tally = Tally()
        self.violations: list[Violation] = []  # the first ones of each kind
        self.broken: Counter[str] = Counter()  # how many of each kind
        self._publishes: dict[str, dict[int, Publish]] = {topic: {} for topic in topics}
        self._next: dict[str, int] = dict.fromkeys(topics, 0)
        self._copies: dict[tuple[str, str], dict[int, Copy]] = {
            (topic, channel): {} for topic, channels in topics.items() for channel in channels
        }
        self._touched: dict[Copy, int] = {}  # copies with events in the running life, and where those begin
        self._identities: dict[tuple[str, int], tuple[bytes, int]] = {}
        self._owners: dict[tuple[str, bytes], tuple[str, int]] = {}

    @property
    def channels(self) -> list[tuple[str, str]]:
        """Every topic and channel."""
        return list(self._copies)

    # -- facts ---------------------------------------------------------------------------------------------------

    def begin_life(self, now_ns: int) -> None:
        """The node is about to be started."""
        self.lives.append(Life(len(self.lives) + 1, now_ns))

    def listening(self, now_ns: int) -> None:
        """The node can be used."""
        life = self.lives[-1]
        life.listening_ns = now_ns
        self.tally.slowest_start_ns = max(self.tally.slowest_start_ns, now_ns - life.started_ns)

    def publish(self, topic: str, count: int, verb: str, *, publisher: str, now_ns: int, delay_ms: int = 0) -> Publish:
        """A publishing command with ``count`` new messages is about to be sent."""
        first = self._next[topic]
        self._next[topic] = first + count
        due_ns = now_ns + delay_ms * MS if delay_ms else 0
        publish = Publish(topic, range(first, first + count), verb, publisher, self.lives[-1].number, now_ns, due_ns)
        self._publishes[topic].update(dict.fromkeys(publish.numbers, publish))
        self.tally.published += count
        return publish

    def acknowledge(self, publish: Publish, now_ns: int) -> None:
        """OK or 200 came for it."""
        publish.acknowledged_ns = now_ns
        self.tally.acknowledged += len(publish.numbers)

    def deliver(
        self,
        channel: tuple[str, str],
        number: int,
        attempts: int,
        identity: tuple[bytes, int],
        *,
        consumer: str,
        now_ns: int,
    ) -> Copy | None:
        """A message came, with ``identity`` its id and timestamp. None if it must not exist (any more)."""
        self.tally.deliveries += 1
        topic, name = channel
        publish = self._publishes[topic].get(number)
        if publish is None:
            known = "had been finished or missing when all was drained" if number < self._next[topic] else "is unknown"
            self.violate("revenant", f"{topic}/{name} message {number} {known}, and comes with attempts {attempts}")
            return None
        copies = self._copies[channel]
        copy = copies.get(number)
        if copy is None:
            copy = copies[number] = Copy(publish, name, number)
        self._note(copy, DELIVERED, attempts, consumer, now_ns)
        copy.open = True
        was = self._identities.setdefault((topic, number), identity)
        if was != identity:
            self._violate_copy("identity", copy, f"came as {was} and comes as {identity}")
        owner = self._owners.setdefault(self._id_key(topic, identity), (topic, number))
        if owner != (topic, number):
            self._violate_copy("identity", copy, f"has the id of {owner}: {identity}")
        return copy

    def _id_key(self, topic: str, identity: tuple[bytes, int]) -> tuple[str, bytes]:
        return topic if self.limits.ids_per_topic else "", identity[0]

    def act(self, copy: Copy, verb: str, value: int, consumer: str, now_ns: int) -> Event:
        """FIN, REQ or TOUCH is being sent."""
        return self._note(copy, verb, value, consumer, now_ns)

    def settle_act(self, copy: Copy, event: Event, outcome: Outcome, now_ns: int) -> None:
        """The receipt of a command, or an error for it, came."""
        if event.outcome is Outcome.UNKNOWN:
            event.outcome = outcome
            event.outcome_ns = now_ns
            if event.what == FIN and outcome is Outcome.DONE:
                copy.open = False

    def violate(self, kind: str, text: str) -> None:
        """Note a broken promise."""
        self.broken[kind] += 1
        if self.broken[kind] <= _SHOWN:
            self.violations.append(Violation(kind, text))

    def _note(self, copy: Copy, what: str, value: int, consumer: str, now_ns: int) -> Event:
        self._touched.setdefault(copy, len(copy.events))
        event = Event(self.lives[-1].number, now_ns, what, value, consumer)
        copy.events.append(event)
        return event

    # -- judgement at the end of a life --------------------------------------------------------------------------

    def end_life(self, ended_ns: int, *, clean: bool, lag_ns: int = 0) -> None:
        """The node has ended, after a signal that was sent at ``ended_ns``, and every connection has been read out."""
        life = self.lives[-1]
        life.ended_ns, life.clean, life.lag_ns = ended_ns, clean, lag_ns
        self.tally.kills += not clean
        self.tally.clean_stops += clean
        self.tally.longest_lag_ns = max(self.tally.longest_lag_ns, lag_ns)
        for copy, first in self._touched.items():
            self._judge(copy, first, life)
        self._touched.clear()

    def _judge(self, copy: Copy, first: int, life: Life) -> None:
        """Go through what happened in ``life`` in the order in which it took effect."""
        for event in self._in_order_of_effect(copy.events[first:]):
            if event.what == DELIVERED:
                self._judge_delivery(copy, event, life)
            elif event.what == FIN and event.outcome is not Outcome.FAILED:
                copy.finish = Finish.SURE if event.outcome is Outcome.DONE else Finish.MAYBE
                copy.finished = event
            elif event.what == REQ and event.outcome is Outcome.DONE and event.value:
                copy.held_until_ns = event.at_ns + event.value * MS
        finished = copy.finished
        if finished is not None and finished.life == life.number and not life.clean:
            window_ns = self.limits.checkpoint_ns + self.limits.slack_ns + life.lag_ns
            if life.ended_ns - finished.outcome_ns <= window_ns:
                copy.finish = Finish.MAYBE

    def _in_order_of_effect(self, events: list[Event]) -> list[Event]:
        """Sort by when the node did it: between the sending of a command and its receipt.

        If the message was surely in flight then, nothing else can have happened to it in between, and the sending
        counts. If not (it had timed out, or been given back before), it may have come to the same consumer again on
        the way, and the command was for that delivery: the receipt counts.
        """
        effects = []
        in_flight_until_ns = 0
        for event in events:
            effect_ns = event.at_ns
            if event.what == DELIVERED:
                in_flight_until_ns = event.at_ns + self.limits.msg_timeout_ns * 9 // 10
            elif event.outcome is Outcome.DONE:
                if event.outcome_ns > in_flight_until_ns:
                    effect_ns = event.outcome_ns
                if event.what != TOUCH:
                    in_flight_until_ns = 0
            effects.append((effect_ns, event))
        # What was read in one go has one time: a receipt that came with a delivery came behind it.
        return [event for _, event in sorted(effects, key=lambda effect: (effect[0], effect[1].what != DELIVERED))]

    def _judge_delivery(self, copy: Copy, event: Event, life: Life) -> None:
        self.tally.redeliveries += copy.last is not None
        self._judge_attempts(copy, event, life)
        self._judge_due(copy, event)
        if copy.finish is Finish.SURE:
            self._violate_copy("duplicate", copy, f"was finished and comes again with attempts {event.value}")
        elif copy.finish is Finish.MAYBE and copy.finished is not None:
            self._count_undone_finish(copy.finished)
        copy.last = event
        copy.finish, copy.finished = Finish.NO, None
        copy.held_until_ns = 0

    def _judge_attempts(self, copy: Copy, event: Event, life: Life) -> None:
        """Each delivery counts one up; only the last one may not have been counted when the node was killed."""
        last = copy.last
        if last is None:
            return
        same_life = last.life == event.life
        if same_life and life.lag_ns > self.limits.msg_timeout_ns // 2:
            return  # we read two connections so late that their order tells nothing
        if not same_life and not all(one.clean for one in self.lives[last.life - 1 : event.life - 1]):
            if event.value < last.value:
                self._violate_copy("attempts", copy, f"has attempts {event.value} after {last.value}")
        elif event.value <= last.value:
            self._violate_copy("attempts", copy, f"has attempts {event.value} after {last.value}, with no kill between")

    def _judge_due(self, copy: Copy, event: Event) -> None:
        """What was deferred or given back with a delay comes when it is due, by whatever number of lives."""
        for due_ns, how in ((copy.publish.due_ns, "deferred"), (copy.held_until_ns, "requeued")):
            early_ns = due_ns - event.at_ns
            if early_ns > self.limits.early_ns:
                self._violate_copy("early", copy, f"was {how}, and comes {early_ns / MS:.1f} ms before it is due")

    def _count_undone_finish(self, finished: Event) -> None:
        if finished.outcome is not Outcome.DONE:
            self.tally.unconfirmed_again += 1
            return
        age_ns = self.lives[finished.life - 1].ended_ns - finished.outcome_ns
        self.tally.finished_again += 1
        self.tally.finished_again_oldest_ns = max(self.tally.finished_again_oldest_ns, age_ns)

    # -- what is owed --------------------------------------------------------------------------------------------

    def check_owed(self, topic: str, channel: str, owed: int) -> None:
        """Compare what the restarted node says it owes with what it must and what it can owe."""
        least, most = self.owed(topic, channel)
        life = self.lives[-1].number
        if owed < least:
            self.violate(
                "owes too little", f"{topic}/{channel} begins life {life} with {owed} and owes {least} or more"
            )
        elif owed > most:
            self.violate("owes too much", f"{topic}/{channel} begins life {life} with {owed} and owes {most} or less")

    def owed(self, topic: str, channel: str) -> tuple[int, int]:
        """Return the least and the most messages that the channel can owe between two lives."""
        copies = self._copies[topic, channel]
        least = most = 0
        for number, publish in self._publishes[topic].items():
            copy = copies.get(number)
            if copy is None:
                least += publish.acknowledged_ns > 0
                most += 1
            else:
                least += copy.finish is Finish.NO
                most += copy.finish is not Finish.SURE
        return least, most

    def unfinished(self, topic: str, channel: str, now_ns: int) -> list[int]:
        """Return the messages that exist, are due and have not been finished, also in the running life."""
        copies = self._copies[topic, channel]
        numbers = []
        for number, publish in self._publishes[topic].items():
            copy = copies.get(number)
            if copy is None:
                if publish.acknowledged_ns and publish.due_ns <= now_ns:
                    numbers.append(number)
            elif copy.open and copy.finish is Finish.NO:
                numbers.append(number)
        return numbers

    def undue(self, topic: str, now_ns: int) -> int:
        """Return how many messages of the topic, acknowledged or not, are not due yet."""
        return sum(publish.due_ns > now_ns for publish in self._publishes[topic].values())

    @property
    def last_due_ns(self) -> int:
        """When the last deferred message is due."""
        return max((p.due_ns for publishes in self._publishes.values() for p in publishes.values()), default=0)

    def settle(self, drained_ns: int) -> None:
        """The node has delivered all that was due at ``drained_ns`` and was stopped cleanly: close the accounts."""
        for (topic, channel), copies in self._copies.items():
            for publish in {p: None for p in self._publishes[topic].values() if p.due_ns <= drained_ns}:
                self._settle(publish, channel, copies)
        for topic, by_number in self._publishes.items():
            for number in [number for number, publish in by_number.items() if publish.due_ns <= drained_ns]:
                self._forget(topic, number)

    def _settle(self, publish: Publish, channel: str, copies: dict[int, Copy]) -> None:
        here = [copies[number] for number in publish.numbers if number in copies]
        if publish.acknowledged_ns:
            for number in publish.numbers:
                if number not in copies:
                    never = Copy(publish, channel, number)
                    self._violate_copy("lost", never, "was acknowledged and never came")
        elif here and len(here) < len(publish.numbers):
            text = f"is one of {len(here)} that came of an unacknowledged {publish.verb} of {len(publish.numbers)}"
            self._violate_copy("torn", here[0], text)
        for copy in here:
            if copy.finish is Finish.NO:
                self._violate_copy("lost", copy, "was never finished and does not come again")

    def _forget(self, topic: str, number: int) -> None:
        del self._publishes[topic][number]
        for (owner, _), copies in self._copies.items():
            if owner == topic:
                copies.pop(number, None)
        identity = self._identities.pop((topic, number), None)
        if identity is not None:
            self._owners.pop(self._id_key(topic, identity), None)
            self.tally.settled += 1

    # -- history -------------------------------------------------------------------------------------------------

    def _violate_copy(self, kind: str, copy: Copy, text: str) -> None:
        self.violate(kind, f"{copy.name} {text}\n{self.history(copy) if self.broken[kind] < _SHOWN else ''}")

    def history(self, copy: Copy) -> str:
        """Return all that is known of a message in a channel, line by line, with the lives it went through."""
        publish = copy.publish
        text = f"{publish.verb} of {publish.numbers.start}..{publish.numbers.stop - 1} sent by {publish.publisher}"
        if publish.due_ns:
            text += f", due {self._seconds(publish.due_ns)}"
        lines = [(publish.sent_ns, text)]
        if publish.acknowledged_ns:
            lines.append((publish.acknowledged_ns, "acknowledged"))
        for event in copy.events:
            lines.append((event.at_ns, f"{event.what} {event.value} · {event.consumer}"))
            if event.outcome_ns:
                lines.append((event.outcome_ns, f"  {event.what}: {event.outcome.value}"))
        for life in self.lives[publish.life - 1 :]:
            lines.append((life.started_ns, f"life {life.number} begins"))
            if life.listening_ns:
                lines.append((life.listening_ns, "listening"))
            if life.ended_ns:
                how = "SIGTERM" if life.clean else f"SIGKILL (our own lag {life.lag_ns / MS:.0f} ms)"
                lines.append((life.ended_ns, f"life {life.number} ends: {how}"))
        lines.sort(key=lambda line: line[0])
        return "\n".join(f"    {self._seconds(at_ns)} {text}" for at_ns, text in lines)

    def _seconds(self, at_ns: int) -> str:
        return f"{(at_ns - self.lives[0].started_ns) / SECOND:+.4f} s"
