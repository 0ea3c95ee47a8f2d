"""A V1 client of lookupd that sends anything. The first byte says how the rest is cut into reads."""

import json
from collections.abc import Iterable

from lookupd.registration_db import RegistrationDB
from lookupd.session import Session
from pynsqd.wire.lookup_v1 import MAX_IDENTIFY_BODY, MAX_LINE, PeerInfo, command, sized
from tests.fuzz.dice import pieces

_IDENTITY = json.dumps({"version": "1.3.0", "tcp_port": 1, "http_port": 2, "broadcast_address": "a", "hostname": "h"})
_GOOD = PeerInfo("10.0.0.9:1", "good", "good", 4150, 4151, "1.3.0")
_ANSWER = b'{"version":"1.3.0"}'


def seeds() -> Iterable[bytes]:
    """Return a session of each kind."""
    identify = b"IDENTIFY\n" + sized(_IDENTITY.encode())
    lines = (
        b"REGISTER t\nREGISTER t c\nREGISTER e#ephemeral c#ephemeral\nPING\nUNREGISTER t c\nUNREGISTER e#ephemeral\n"
    )
    for size in (0, 1, 5):
        yield bytes([size]) + b"  V1" + identify + lines
        yield bytes([size]) + b"  V1PING\n PING \r\nREGISTER t\n"
        yield bytes([size]) + b"  V1IDENTIFY\n\xff\xff\xff\xff"
        yield bytes([size]) + b"  V1" + identify + b"REGISTER * c\n"
        yield bytes([size]) + b"  V1" + identify + command("REGISTER", "t", "no name!") + identify
    yield b"\0  V1IDENTIFY\n" + sized(b"[" * 3000)
    yield b"\0  V2PING\n"


def run(data: bytes) -> None:
    """Raise unless every answer is well-formed, the cut makes no difference, and others keep their registrations."""
    if not data:
        return
    whole = _serve([data[1:]])
    reads = pieces(data[1:], data[0])
    if len(reads) > 1:
        assert _serve(reads) == whole, "it depends on how the bytes were cut"


def _serve(reads: list[bytes]) -> object:
    db = RegistrationDB(300_000_000_000, 45_000_000_000)
    good = db.add_producer(_GOOD, 1)
    db.register(good, "t", "c")
    session = Session("10.0.0.1:2", db, lambda: _ANSWER)
    output = b""
    for number, read in enumerate(reads):
        answers = session.receive(read, number)
        assert session.closing or len(session._inbox) <= max(MAX_LINE, MAX_IDENTIFY_BODY + 4)
        output += answers
        if session.closing:
            break
    output += session.end()
    seen = sorted(session.producer.registered) if session.producer else []
    session.leave()
    assert good.registered == {"t": {"c"}}
    assert db.nodes(1) == [good]
    _check(output)
    return output, session.closing, seen


def _check(output: bytes) -> None:
    at = 0
    while at < len(output):
        size = int.from_bytes(output[at : at + 4], "big")
        answer = output[at + 4 : at + 4 + size]
        assert len(answer) == size, "cut short"
        at += 4 + size
        assert answer in (b"OK", _ANSWER) or answer.startswith(b"E_"), answer
        assert not answer.startswith(b"E_") or at == len(output), "something follows an error"
