"""Clients that consume until the node dies, and do with each message what chance says.

A FIN, REQ or TOUCH is answered only when it fails. To learn that it was carried out, a consumer sends the TOUCH of a
message that does not exist behind it: commands run in order, so the error for that one is the receipt.
"""

import asyncio
import re
import struct
from collections import deque
from random import Random
from time import monotonic_ns
from typing import Final

from tests.behaviour.kill_nine.bodies import number_in
from tests.behaviour.kill_nine.ledger import Ledger
from tests.behaviour.kill_nine.records import FIN, REQ, TOUCH, Copy, Event, Outcome
from tests.support.wire import ERROR, MESSAGE, Message, command

_IDENTIFY: Final = command(b"IDENTIFY", b'{"client_id":"kill","hostname":"kill","heartbeat_interval":60000}')
_FAILED: Final = re.compile(rb"E_(FIN|REQ|TOUCH)_FAILED \w+ (.{16}) failed", re.DOTALL)
_RECEIPT: Final = b"receipt"
_LEAVES: Final = 0.1


class Consumer:
    """One subscriber that comes back after each restart."""

    def __init__(self, name: str, topic: str, channel: str, random: Random, ledger: Ledger) -> None:
        self.name = name
        self.topic = topic
        self.channel = channel
        self.random = random
        self.ledger = ledger

    async def live(self, address: tuple[str, int], *, draining: bool) -> None:
        """Consume until the node ends the connection; now and then leave first and come back."""
        while True:
            loop = asyncio.get_running_loop()
            try:
                transport, subscription = await loop.create_connection(lambda: _Subscription(self, draining), *address)
            except OSError:
                return
            leaves = not draining and self.random.random() < _LEAVES
            patience_s = self.random.uniform(0.0, 0.3) if leaves else None
            ended, _ = await asyncio.wait([subscription.ended], timeout=patience_s)
            transport.abort()
            if ended:
                return
            await subscription.ended


class _Subscription(asyncio.Protocol):
    """One connection of a consumer."""

    def __init__(self, consumer: Consumer, draining: bool) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumer = consumer
        self._draining = draining
        self._ledger = consumer.ledger
        self._random = consumer.random
        self._buffer = b""
        self._ids: dict[bytes, Copy] = {}
        self._later: list[asyncio.TimerHandle] = []
        self._unconfirmed: deque[tuple[bytes, list[tuple[bytes, Copy, Event]]]] = deque()
        self._receipts = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        window = 200 if self._draining else self._random.choice((1, 2, 10, 50, 200))
        subscribe = f"SUB {self._consumer.topic} {self._consumer.channel}\nRDY {window}\n"
        transport.write(b"  V2" + _IDENTIFY + subscribe.encode())

    def connection_lost(self, error: Exception | None) -> None:
        for handle in self._later:
            handle.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    # -- what comes ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now_ns = monotonic_ns()
        buffer = self._buffer + data
        begin = 0
        answers: list[tuple[bytes, str, int]] = []
        while len(buffer) - begin >= 8:
            size, kind = struct.unpack_from(">ii", buffer, begin)
            end = begin + 4 + size
            if end > len(buffer):
                break
            payload = buffer[begin + 8 : end]
            begin = end
            if kind == MESSAGE:
                answers += self._take(Message.parse(payload), now_ns)
            elif kind == ERROR:
                self._fail(payload, now_ns)
            elif payload == b"_heartbeat_":
                self._transport.write(b"NOP\n")
        self._buffer = buffer[begin:]
        self._send(answers)

    def _take(self, message: Message, now_ns: int) -> list[tuple[bytes, str, int]]:
        """Note a delivery and return what to send about it at once."""
        number = number_in(message.body)
        consumer = self._consumer
        if number is None:
            text = f"{consumer.topic}/{consumer.channel} delivered {message}, which is not as it was published"
            self._ledger.violate("damaged", text)
            return []
        identity = (message.id, message.timestamp_ns)
        channel = (consumer.topic, consumer.channel)
        copy = self._ledger.deliver(channel, number, message.attempts, identity, consumer=consumer.name, now_ns=now_ns)
        if copy is None:
            return []
        self._ids[message.id] = copy
        return self._decide(message.id)

    def _decide(self, message_id: bytes) -> list[tuple[bytes, str, int]]:
        draw, random = self._random.random(), self._random
        if self._draining or draw < 0.55:
            return [(message_id, FIN, 0)]
        if draw < 0.67:
            self._send_later(random.uniform(0.0, 0.3), (message_id, FIN, 0))
        elif draw < 0.75:
            return [(message_id, REQ, 0)]
        elif draw < 0.82:
            return [(message_id, REQ, random.randint(1, 800))]
        elif draw < 0.87:
            self._send_later(random.uniform(0.0, 0.3), (message_id, REQ, random.randint(0, 300)))
        elif draw < 0.92:
            self._send_later(random.uniform(0.3, 0.9), (message_id, TOUCH, 0))
            self._send_later(random.uniform(0.9, 1.7), (message_id, FIN, 0))
        elif draw < 0.96:
            self._send_later(random.uniform(0.9, 1.2), (message_id, FIN, 0))  # about when it times out
        return []

    def _fail(self, payload: bytes, now_ns: int) -> None:
        """Take an error: a receipt, or the failure of a command that is still unconfirmed."""
        found = _FAILED.match(payload)
        if found is None:
            self._ledger.violate("answer", f"{self._consumer.name} was answered {payload!r}")
        elif found[2].startswith(_RECEIPT):
            while self._unconfirmed:
                receipt, acts = self._unconfirmed.popleft()
                for _, copy, event in acts:
                    self._ledger.settle_act(copy, event, Outcome.DONE, now_ns)
                if receipt == found[2]:
                    break
        else:
            self._refuse(found[1].decode(), found[2], now_ns)

    def _refuse(self, verb: str, message_id: bytes, now_ns: int) -> None:
        for _, acts in self._unconfirmed:
            for one, copy, event in acts:
                if one == message_id and event.what == verb and event.outcome is Outcome.UNKNOWN:
                    self._ledger.settle_act(copy, event, Outcome.FAILED, now_ns)
                    return
        self._ledger.violate("answer", f"{self._consumer.name}: {verb} of {message_id!r} failed and was not sent")

    # -- what goes -----------------------------------------------------------------------------------------------

    def _send_later(self, seconds: float, answer: tuple[bytes, str, int]) -> None:
        self._later.append(asyncio.get_running_loop().call_later(seconds, self._send, [answer]))

    def _send(self, answers: list[tuple[bytes, str, int]]) -> None:
        if not answers or self._transport.is_closing():
            return
        now_ns = monotonic_ns()
        acts = []
        words = []
        for message_id, verb, value in answers:
            copy = self._ids[message_id]
            acts.append((message_id, copy, self._ledger.act(copy, verb, value, self._consumer.name, now_ns)))
            words.append(b"%s %s%s\n" % (verb.encode(), message_id, b" %d" % value if verb == REQ else b""))
        self._receipts += 1
        receipt = _RECEIPT + b"%09d" % self._receipts
        self._unconfirmed.append((receipt, acts))
        self._transport.write(b"".join(words) + b"TOUCH " + receipt + b"\n")
