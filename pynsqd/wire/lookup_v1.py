"""The protocol V1 between a node and a lookupd, both directions (PROTOCOL 5.1): lines one way, sized answers back.

Sans-I/O: ``Inbox`` takes bytes as they come and gives out lines and sized bodies as they are complete.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from struct import Struct
from typing import Final

from pynsqd.wire.errors import E_BAD_BODY, FatalClientError, NsqError

# nsqlookupd has neither limit, and dies of a negative size (PROTOCOL 8, row 12). No line or IDENTIFY needs 200 bytes.
MAX_LINE: Final = 1 << 20
MAX_IDENTIFY_BODY: Final = 65536

_SIZE: Final = Struct(">i")
# What Go trims from both ends of a line: Unicode white space, which is not quite what str.strip() takes.
_WHITE_SPACE: Final = " \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_INT64_MAX: Final = (1 << 63) - 1


class MalformedInput(NsqError):
    """What arrived is not protocol V1: a line without end or a size that cannot be. Nothing after it can be read."""


class BadSize(MalformedInput):
    """A length prefix that is negative or above the limit."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"size {size} is not within 0-{limit}")
        self.size = size
        self.limit = limit


class Inbox:
    """Bytes that have arrived and are not used yet."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Append what has arrived."""
        if self._at:
            del self._data[: self._at]
            self._at = 0
        self._data += data

    def take(self, count: int) -> bytes | None:
        """Take exactly ``count`` bytes, or None as long as there are fewer."""
        if len(self) < count:
            return None
        start = self._at
        self._at += count
        return bytes(self._data[start : self._at])

    def line(self) -> str | None:
        """Take the next line, trimmed of white space at both ends (PROTOCOL 5.1), or None until its newline is here.

        Raises:
            MalformedInput: it is longer than MAX_LINE bytes.
        """
        end = self._data.find(b"\n", self._at)
        length = (end + 1 if end >= 0 else len(self._data)) - self._at
        if length > MAX_LINE:
            raise MalformedInput(f"a line is longer than {MAX_LINE} bytes")
        if end < 0:
            return None
        line = self._data[self._at : end].decode("utf-8", "surrogateescape")
        self._at = end + 1
        return line.strip(_WHITE_SPACE)

    def sized(self, limit: int) -> bytes | None:
        """Take a body with its int32 size before it, or None until all of it is here.

        Raises:
            BadSize: the size is negative or above ``limit``.
        """
        if len(self) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._data, self._at)
        if not 0 <= size <= limit:
            raise BadSize(size, limit)
        if len(self) < _SIZE.size + size:
            return None
        self._at += _SIZE.size
        return self.take(size)


def command(name: str, *params: str) -> bytes:
    """Build a command line: PING, REGISTER or UNREGISTER. Empty parameters are left out."""
    return " ".join((name, *filter(None, params))).encode() + b"\n"


def sized(body: bytes) -> bytes:
    """Put the int32 size before ``body``: an answer, or what follows ``IDENTIFY``."""
    return _SIZE.pack(len(body)) + body


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What an IDENTIFY, or its answer, says about its sender, in the order in which /lookup shows it."""

    remote_address: str
    hostname: str
    broadcast_address: str
    tcp_port: int
    http_port: int
    version: str

    def shown(self) -> dict[str, object]:
        """Return the fields as /lookup and /nodes show them, in their order."""
        return {name: getattr(self, name) for name in self.__slots__}


def parse_peer_info(body: bytes, remote_address: str) -> PeerInfo:
    """Read the JSON of an IDENTIFY or of its answer as Go does: names match in any case, ``null`` is no value.

    Args:
        body: the JSON text.
        remote_address: where it came from, as ip:port; what the body says about that must be a string, and is ignored.

    Raises:
        FatalClientError: E_BAD_BODY, it is no JSON object or a value has the wrong type.
    """
    try:
        given = json.loads(body.decode("utf-8", "replace"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _undecodable() from None
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise _undecodable()
    fields = {name.lower(): value for name, value in given.items() if value is not None}
    _text(fields, "remote_address")
    return PeerInfo(
        remote_address=remote_address,
        hostname=_text(fields, "hostname"),
        broadcast_address=_text(fields, "broadcast_address"),
        tcp_port=_integer(fields, "tcp_port"),
        http_port=_integer(fields, "http_port"),
        version=_text(fields, "version"),
    )


def _undecodable() -> FatalClientError:
    return FatalClientError(E_BAD_BODY, "IDENTIFY failed to decode JSON body")


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise _undecodable()
    return _SURROGATES.sub("\ufffd", value)


def _integer(fields: dict[str, object], name: str) -> int:
    value = fields.get(name, 0)
    if type(value) is not int or not -_INT64_MAX - 1 <= value <= _INT64_MAX:
        raise _undecodable()
    return value
