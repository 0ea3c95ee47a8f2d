"""Go's ``%q``: how nsqd shows a name that it refuses (PROTOCOL 1.1)."""

from typing import Final

_NAMED: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quote(raw: bytes) -> str:
    """Quote ``raw`` with the escapes of Go's strconv.Quote: bytes that are no UTF-8 become ``\\xff``."""
    return '"' + "".join(map(_escape, text(raw))) + '"'


def text(raw: bytes) -> str:
    """Return ``raw`` as text; bytes that are no UTF-8 survive, and go back as they came."""
    return raw.decode("utf-8", "surrogateescape")


def _escape(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
