"""One V1 client of lookupd (PROTOCOL 5.1). Sans-I/O: bytes and the time go in, bytes come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lookupd.registration_db import Producer, RegistrationDB
from pynsqd.wire.constants import MAGIC_V1
from pynsqd.wire.errors import (
    E_BAD_BODY,
    E_BAD_CHANNEL,
    E_BAD_PROTOCOL,
    E_BAD_TOPIC,
    E_INVALID,
    FatalClientError,
)
from pynsqd.wire.lookup_v1 import MAX_IDENTIFY_BODY, BadSize, Inbox, MalformedInput, parse_peer_info, sized
from pynsqd.wire.names import is_valid_name

_OK: Final = sized(b"OK")


class Session:
    """The state of one connection.

    ``closing`` says that the connection is to be closed once what ``receive`` returned has been sent, and ``refusal``
    why, for the log. ``producer`` is set by IDENTIFY.
    """

    def __init__(self, peer: str, db: RegistrationDB, identity: Callable[[], bytes]) -> None:
        """Start a session.

        Args:
            peer: the client's ip:port, which becomes the producer's id.
            db: where its registrations go.
            identity: gives the JSON that answers an IDENTIFY.
        """
        self.closing = False
        self.refusal = ""
        self.producer: Producer | None = None
        self._peer = peer
        self._db = db
        self._identity = identity
        self._inbox = Inbox()
        self._step: Callable[[int], bytes | None] = self._read_magic

    @property
    def greeted(self) -> bool:
        """Whether the magic has arrived."""
        return self._step != self._read_magic

    def receive(self, data: bytes, now_ns: int) -> bytes:
        """Take what has arrived and return the answers to all commands that it completes; none once it is closing."""
        self._inbox.feed(data)
        answers: list[bytes] = []
        try:
            while not self.closing and (answer := self._step(now_ns)) is not None:
                answers.append(answer)
        except FatalClientError as error:
            answers.append(self._refuse(error))
        except MalformedInput as error:  # nsqd's way with an endless line: close without a word (PROTOCOL 1.1)
            self.refusal = str(error)
            self.closing = True
        return b"".join(answers)

    def end(self) -> bytes:
        """Take the end of input and return the last answer: an IDENTIFY that was cut off gets its error."""
        if self.closing:
            return b""
        self.closing = True
        if self._step != self._read_identity:
            return b""
        missing = "body size" if len(self._inbox) < 4 else "body"
        return self._refuse(FatalClientError(E_BAD_BODY, f"IDENTIFY failed to read {missing}"))

    def leave(self) -> None:
        """Take the loss of the connection: the producer and its registrations go."""
        if self.producer is not None:
            self._db.remove_producer(self.producer)

    def _refuse(self, error: FatalClientError) -> bytes:
        self.refusal = str(error)
        self.closing = True
        return sized(error.payload)

    # ---- steps: each takes one thing from the inbox and answers it, or returns None until it is complete

    def _read_magic(self, now_ns: int) -> bytes | None:
        magic = self._inbox.take(len(MAGIC_V1))
        if magic is None:
            return None
        if magic != MAGIC_V1:
            raise FatalClientError(E_BAD_PROTOCOL)
        self._step = self._read_command
        return b""

    def _read_command(self, now_ns: int) -> bytes | None:
        line = self._inbox.line()
        if line is None:
            return None
        name, *params = line.split(" ")
        if name == "PING":
            return self._ping(now_ns)
        if name == "IDENTIFY":
            if self.producer is not None:
                raise FatalClientError(E_INVALID, "cannot IDENTIFY again")
            self._step = self._read_identity
            return b""
        if name == "REGISTER":
            self._db.register(*self._registration(name, params))
            return _OK
        if name == "UNREGISTER":
            self._db.unregister(*self._registration(name, params))
            return _OK
        raise FatalClientError(E_INVALID, f"invalid command {name}")

    def _read_identity(self, now_ns: int) -> bytes | None:
        try:
            body = self._inbox.sized(MAX_IDENTIFY_BODY)
        except BadSize as error:  # nsqlookupd takes any size, and dies of a negative one (PROTOCOL 8, row 12)
            text = f"body too big {error.size} > {error.limit}" if error.size > 0 else f"invalid body size {error.size}"
            raise FatalClientError(E_BAD_BODY, f"IDENTIFY {text}") from None
        if body is None:
            return None
        info = parse_peer_info(body, self._peer)
        if not (info.broadcast_address and info.tcp_port and info.http_port and info.version):
            raise FatalClientError(E_BAD_BODY, "IDENTIFY missing fields")
        self.producer = self._db.add_producer(info, now_ns)
        self._step = self._read_command
        return sized(self._identity())

    def _ping(self, now_ns: int) -> bytes:
        if self.producer is not None:
            self.producer.last_update_ns = now_ns
        return _OK

    def _registration(self, command: str, params: list[str]) -> tuple[Producer, str, str]:
        """Check the parameters of REGISTER or UNREGISTER, in nsqlookupd's order; further ones are ignored."""
        if self.producer is None:
            raise FatalClientError(E_INVALID, "client must IDENTIFY")
        if not params:
            raise FatalClientError(E_INVALID, f"{command} insufficient number of params")
        topic, channel = params[0], params[1] if len(params) > 1 else ""
        if not is_valid_name(topic):
            raise FatalClientError(E_BAD_TOPIC, f"{command} topic name '{topic}' is not valid")
        if channel and not is_valid_name(channel):
            raise FatalClientError(E_BAD_CHANNEL, f"{command} channel name '{channel}' is not valid")
        return self.producer, topic, channel
