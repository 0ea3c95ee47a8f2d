"""A topic with its channels against a simple model: publish, deliver, FIN, REQ, TOUCH, timeout, pause, empty, leave,
delete, stop and kill, in any order.

After every step: nothing is lost, nothing is in flight twice, nothing early, nothing late, attempts grow by one a
delivery, first deliveries are in publish order, depth, in-flight and deferred counts are exact, and nobody with an open
window waits while there is something for it. After a kill, what was finished since the checkpoint may come again, and
only that.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pynsqd.core.channel import Channel
from pynsqd.core.owed import move_stragglers
from tests.support.session_wire import MS, OK, Client, Node, command, mpub
from tests.support.wire import ERROR, MESSAGE, Message

CEILING_MS = 4000
DELAYS_MS = st.sampled_from([1, 500, 2000, 200_000])
PICK = st.integers(0, 50)
NAMES = ("c", "d")


@dataclass
class Held:
    """A message in one channel."""

    body: bytes
    order: int  # of plain publishes; -1 for a deferred one
    low: int = 0  # attempts so far: not exactly known after a kill
    high: int = 0
    saved: int = 0  # attempts at the last checkpoint
    id: bytes = b""
    place: str = "ready"
    owner: Client | None = None
    delivered_ns: int = 0
    event_ns: int = 0  # when it times out or becomes due

    def wait(self, due_ns: int = 0) -> None:
        self.place, self.owner, self.event_ns = ("deferred" if due_ns else "ready"), None, due_ns


@dataclass
class ChannelModel:
    """What one channel owes."""

    born: int = 0  # the checkpoint that was the last one then
    messages: dict[bytes, Held] = field(default_factory=dict)
    finished: dict[bytes, Held] = field(default_factory=dict)  # since the last checkpoint
    maybe: dict[bytes, Held] = field(default_factory=dict)  # may come again after a kill
    in_order: list[int] = field(default_factory=list)  # plain messages that were never delivered
    paused: bool = False
    timeouts: int = 0
    requeues: int = 0

    def at(self, place: str) -> list[Held]:
        return [held for held in self.messages.values() if held.place == place]


class Machine(RuleBasedStateMachine):
    """The node, and what it should be doing."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: dict[str, ChannelModel] = {}
        self.clients: dict[Client, tuple[str, int, int]] = {}  # channel, RDY, message timeout in ns
        self.waiting: list[tuple[bytes, int, int]] = []  # body, order, due_ns
        self.since_checkpoint: list[tuple[bytes, int]] = []  # published since, or waiting then
        self.topic_paused = False
        self.serial = 0
        self.restarted = False

    @initialize(
        durability=st.sampled_from(["log", "log", "memory"]),
        size=st.sampled_from([10_000, 2]),
        memory=st.sampled_from([1 << 26, 300]),
    )
    def start(self, durability: str, size: int, memory: int) -> None:
        self.durability = durability
        self.node = Node(
            durability=durability, mem_queue_size=size, mem_queue_bytes=memory, max_msg_timeout_ns=CEILING_MS * MS
        )
        self.node.broker.topic("t")
        self.node.turn()
        self.checkpoint()

    # -- the model's side of things ----------------------------------------------------------------------------------

    @property
    def flowing(self) -> bool:
        return bool(self.channels) and not self.topic_paused

    def flow(self) -> None:
        if self.flowing:
            waiting, self.waiting = self.waiting, []
            for body, order, due_ns in waiting:
                self.arrive(body, order, due_ns)

    def arrive(self, body: bytes, order: int, due_ns: int) -> None:
        for model in self.channels.values():
            held = model.messages[body] = Held(body, order)
            if order >= 0:
                model.in_order.append(order)
            if due_ns:
                held.wait(due_ns)

    def settle(self) -> None:
        """The turn is over: take what came, after what is due by now has become ready."""
        now_ns = self.node.now_ns
        for model in self.channels.values():
            for held in model.messages.values():
                if held.place != "ready" and held.event_ns <= now_ns:
                    model.timeouts += held.place == "flight"
                    held.wait()
        for name, model in self.channels.items():
            first: list[int] = []
            for client, (subscribed, _, _) in self.clients.items():
                if subscribed == name:
                    for frame in client.take():
                        assert frame.type == MESSAGE, frame
                        self.deliver(model, client, Message.parse(frame.payload), first)
            assert sorted(first) == model.in_order[: len(first)]
            del model.in_order[: len(first)]
            if not model.paused and model.at("ready"):
                assert not any(self.window(client) > 0 for client in self.subscribed(name)), "somebody waits in vain"

    def deliver(self, model: ChannelModel, client: Client, message: Message, first: list[int]) -> None:
        held = model.messages.get(message.body)
        if held is None:
            held = model.maybe.pop(message.body)  # a KeyError is a message that nobody owes
            model.messages[message.body] = held
        assert held.place == "ready", f"delivered while it is {held.place}"
        assert held.low < message.attempts <= held.high + 1
        assert held.id in (b"", message.id)
        if held.order in model.in_order:
            first.append(held.order)
        assert not model.paused
        held.low = held.high = message.attempts
        held.id, held.place, held.owner = message.id, "flight", client
        held.delivered_ns = self.node.now_ns
        held.event_ns = held.delivered_ns + self.clients[client][2]
        assert self.window(client) >= 0

    def subscribed(self, name: str) -> list[Client]:
        return [client for client, (one, _, _) in self.clients.items() if one == name]

    def window(self, client: Client) -> int:
        name, rdy, _ = self.clients[client]
        return rdy - sum(held.owner is client for held in self.channels[name].at("flight"))

    def turn(self) -> None:
        before = self.node.checkpoints
        self.node.turn()
        if self.node.checkpoints != before:
            self.note_checkpoint()
        self.settle()

    def note_checkpoint(self) -> None:
        self.since_checkpoint = [(body, order) for body, order, _ in self.waiting]
        for model in self.channels.values():
            model.finished.clear()
            for held in model.messages.values():
                held.saved = held.low

    def in_flight(self, pick: int) -> Held | None:
        """Any message that is in flight, with its owner."""
        found = [held for model in self.channels.values() for held in model.at("flight")]
        return found[pick % len(found)] if found else None

    def model_of(self, held: Held) -> ChannelModel:
        assert held.owner is not None
        return self.channels[self.clients[held.owner][0]]

    # -- publishing --------------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 6), batch=st.booleans())
    def publish(self, count: int, batch: bool) -> None:
        bodies = [b"%d" % (self.serial + offset) for offset in range(count)]
        client = self.node.client()
        client.send(mpub(b"t", bodies) if batch else b"".join(command(b"PUB t", body) for body in bodies))
        self.take_in(client, bodies, 0)

    @rule(delay_ms=DELAYS_MS, count=st.integers(1, 3))
    def publish_deferred(self, delay_ms: int, count: int) -> None:
        bodies = [b"%d" % (self.serial + offset) for offset in range(count)]
        client = self.node.client()
        client.send(b"".join(command(b"DPUB t %d" % delay_ms, body) for body in bodies))
        self.take_in(client, bodies, self.node.now_ns + delay_ms * MS)

    def take_in(self, client: Client, bodies: list[bytes], due_ns: int) -> None:
        for body in bodies:
            order = -1 if due_ns else self.serial
            self.waiting.append((body, order, due_ns))
            self.since_checkpoint.append((body, order))
            self.serial += 1
        self.flow()
        self.turn()
        assert set(client.take()) == {OK}
        client.drop()
        self.turn()

    # -- consuming ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.clients) < 5)
    @rule(name=st.sampled_from(NAMES), rdy=st.integers(0, 8), timeout_ms=st.sampled_from([1000, 3000, CEILING_MS]))
    def subscribe(self, name: str, rdy: int, timeout_ms: int) -> None:
        client = self.node.client()
        body = b'{"msg_timeout":%d}' % timeout_ms
        client.send(command(b"IDENTIFY", body) + b"SUB t " + name.encode() + b"\n")
        self.create(name)
        assert client.take() == [OK, OK]
        client.answers = True
        self.clients[client] = (name, 0, timeout_ms * MS)
        self.set_rdy(client, rdy)

    def create(self, name: str) -> None:
        if name not in self.channels:
            self.channels[name] = ChannelModel(born=self.node.checkpoints)
            self.flow()
        self.turn()

    @rule(name=st.sampled_from(NAMES))
    def create_channel(self, name: str) -> None:
        self.node.topic().channel(name)
        self.create(name)

    @precondition(lambda self: self.clients)
    @rule(pick=PICK, rdy=st.integers(0, 8))
    def rdy(self, pick: int, rdy: int) -> None:
        self.set_rdy(list(self.clients)[pick % len(self.clients)], rdy)

    def set_rdy(self, client: Client, rdy: int) -> None:
        name, _, timeout_ns = self.clients[client]
        self.clients[client] = (name, rdy, timeout_ns)
        client.send(b"RDY %d\n" % rdy)
        self.turn()

    @rule(picks=st.lists(PICK, min_size=1, max_size=6))
    def finish(self, picks: list[int]) -> None:
        for pick in picks:
            held = self.in_flight(pick)
            if held is None or held.owner is None:
                break
            model = self.model_of(held)
            held.owner.send(b"FIN " + held.id + b"\n")
            del model.messages[held.body]
            model.finished[held.body] = held
        self.turn()

    @rule(pick=PICK, delay_ms=st.just(0) | DELAYS_MS)
    def requeue(self, pick: int, delay_ms: int) -> None:
        held = self.in_flight(pick)
        if held is not None and held.owner is not None:
            held.owner.send(b"REQ " + held.id + b" %d\n" % delay_ms)
            self.model_of(held).requeues += 1
            held.wait(self.node.now_ns + delay_ms * MS if delay_ms else 0)
            self.turn()

    @rule(pick=PICK)
    def touch(self, pick: int) -> None:
        held = self.in_flight(pick)
        if held is not None and held.owner is not None:
            held.owner.send(b"TOUCH " + held.id + b"\n")
            timeout_ns = self.clients[held.owner][2]
            held.event_ns = min(self.node.now_ns + timeout_ns, held.delivered_ns + CEILING_MS * MS)
            self.turn()

    @precondition(lambda self: self.clients)
    @rule(pick=PICK, which=PICK, verb=st.sampled_from([b"FIN %b\n", b"REQ %b 0\n", b"TOUCH %b\n"]))
    def acknowledge_what_is_not_ours(self, pick: int, which: int, verb: bytes) -> None:
        client = list(self.clients)[pick % len(self.clients)]
        model = self.channels[self.clients[client][0]]
        others = [held for held in model.messages.values() if held.owner is not client and held.id]
        one = others[which % len(others)].id if others else b"0123456789abcdef"
        client.send(verb % one)
        self.node.turn()
        frames = client.take()
        assert [frame.type for frame in frames] == [ERROR]
        assert frames[0].payload.endswith((b"failed ID not in flight", b"failed client does not own message"))
        self.settle()

    @precondition(lambda self: self.clients)
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        client = list(self.clients)[pick % len(self.clients)]
        client.drop()
        self.lose([client])
        self.turn()

    def lose(self, clients: list[Client]) -> None:
        for client in clients:
            for held in self.channels[self.clients[client][0]].at("flight"):
                if held.owner is client:
                    held.wait()
            del self.clients[client]

    # -- time --------------------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([0.000001, 1, 400, 999, 1000, 1001, 3000, 150_000]))
    def advance(self, ms: float) -> None:
        until_ns = self.node.now_ns + round(ms * MS)
        while 0 < self.node.broker.next_due_ns <= until_ns:
            self.node.clock.advance(ns=self.node.broker.next_due_ns - self.node.now_ns)
            self.turn()
        self.node.clock.advance(ns=until_ns - self.node.now_ns)
        self.turn()

    # -- administration ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.channels)
    @rule(pick=PICK)
    def pause_or_unpause_channel(self, pick: int) -> None:
        name = list(self.channels)[pick % len(self.channels)]
        channel, model = self.channel(name), self.channels[name]
        if model.paused:
            channel.unpause()
        else:
            channel.pause()
        model.paused = not model.paused
        self.turn()

    @rule()
    def pause_or_unpause_topic(self) -> None:
        if self.topic_paused:
            self.node.topic().unpause()
        else:
            self.node.topic().pause()
        self.topic_paused = not self.topic_paused
        self.flow()
        self.turn()

    @precondition(lambda self: self.channels)
    @rule(pick=PICK)
    def empty_channel(self, pick: int) -> None:
        name = list(self.channels)[pick % len(self.channels)]
        self.channel(name).empty()
        model = self.channels[name]
        for gone in (model.messages, model.maybe, model.finished, model.in_order):
            gone.clear()
        self.turn()

    @rule()
    def empty_topic(self) -> None:
        self.node.topic().empty()
        self.waiting.clear()
        self.turn()

    @precondition(lambda self: self.channels)
    @rule(pick=PICK)
    def delete_channel(self, pick: int) -> None:
        name = list(self.channels)[pick % len(self.channels)]
        clients = self.subscribed(name)
        self.node.topic().delete_channel(name)
        for client in clients:
            del self.clients[client]
        del self.channels[name]
        self.turn()
        assert all(client.closed and client.take() == [] for client in clients)

    # -- restart -----------------------------------------------------------------------------------------------------

    @rule()
    def checkpoint(self) -> None:
        self.node.checkpoint()
        self.note_checkpoint()

    @rule()
    def move_stragglers(self) -> None:
        topic = self.node.topic()
        assert topic.log is not None
        move_stragglers(topic, topic.log.end, 1 << 20)

    @rule()
    def stop(self) -> None:
        self.lose(list(self.clients))
        self.node.stop()
        if self.durability == "memory":  # what was in the log already comes behind what was not
            for model in self.channels.values():
                model.in_order.clear()
        self.begin_again()

    @precondition(lambda self: self.durability == "log")
    @rule()
    def kill(self) -> None:
        self.lose(list(self.clients))
        for model in self.channels.values():
            for held in model.messages.values():
                held.low = min(held.low, held.saved)
            model.maybe |= model.finished
            model.finished.clear()
            if model.born == self.node.checkpoints:  # it is not known when exactly it was made
                for body, order in self.since_checkpoint:
                    if body not in model.messages:
                        model.maybe.setdefault(body, Held(body, order))
            for held in model.maybe.values():
                held.wait()
                held.low = 0
        self.node.kill()
        self.begin_again()

    def begin_again(self) -> None:
        self.checkpoint()  # as every start does, so that the next life has other ids than this one
        self.restarted = True
        for model in self.channels.values():
            model.timeouts = model.requeues = 0
        self.settle()

    # -- always ------------------------------------------------------------------------------------------------------

    def channel(self, name: str) -> Channel:
        return self.node.channel(name)

    @invariant()
    def counts_are_exact(self) -> None:
        if not hasattr(self, "node"):
            return
        topic = self.node.topic()
        assert topic.depth == len(self.waiting)
        assert set(topic.channels) == set(self.channels)
        for name, model in self.channels.items():
            channel = topic.channels[name]
            extra = len(model.maybe)
            deferred, ready = len(model.at("deferred")), len(model.at("ready"))
            assert channel.in_flight_count == len(model.at("flight"))
            assert ready <= channel.depth <= ready + extra
            assert deferred <= len(channel.deferred) <= deferred + extra
            assert channel.depth + len(channel.deferred) <= ready + deferred + extra
            assert (channel.timeout_count, channel.requeue_count) == (model.timeouts, model.requeues)
            assert channel.paused == model.paused
            if not extra and not self.restarted:
                assert channel.message_count >= len(model.messages)
            if channel.depth == 0 and len(channel.deferred) == 0:
                model.maybe.clear()

    @invariant()
    def nothing_will_be_late(self) -> None:
        if hasattr(self, "node"):
            events = [held.event_ns for model in self.channels.values() for held in model.messages.values()]
            due_ns = self.node.broker.next_due_ns
            assert all(not event_ns or 0 < due_ns <= event_ns for event_ns in events)

    def teardown(self) -> None:
        """Everything that is owed comes, if somebody takes it."""
        if not hasattr(self, "node"):
            return
        if self.topic_paused:
            self.pause_or_unpause_topic()
        self.lose_all()
        for name, model in self.channels.items():
            if model.paused:
                self.channel(name).unpause()
                model.paused = False
            client = self.node.consumer(2500, channel=name.encode(), msg_timeout=4000)
            client.answers = True
            got = {message.body for message in client.messages()}
            for _ in range(5):
                self.node.advance(s=50)
                frames = [Message.parse(frame.payload) for frame in client.take() if frame.type == MESSAGE]
                got |= {message.body for message in frames}
            assert set(model.messages) <= got <= set(model.messages) | set(model.maybe)
            client.drop()

    def lose_all(self) -> None:
        for client in list(self.clients):
            client.drop()
        self.lose(list(self.clients))
        self.turn()


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, report_multiple_bugs=False)
TestDeliveryModel = Machine.TestCase
