"""Message bodies that say which message they are and prove that they are whole."""

from random import Random
from typing import Final
from zlib import crc32

_FILLER: Final = b"0123456789abcdef" * 8192
_BIG: Final = 0.003


def make(number: int, random: Random) -> bytes:
    """Return a body for message ``number``: mostly a few hundred bytes, now and then up to 128 KiB. No newline."""
    size = random.randrange(len(_FILLER)) if random.random() < _BIG else random.randrange(400)
    text = b"%d %s" % (number, _FILLER[:size])
    return b"%08x %s" % (crc32(text), text)


def number_in(body: bytes) -> int | None:
    """Return the number of the message, None if the body is not what was made for it."""
    check, _, text = body.partition(b" ")
    if check != b"%08x" % crc32(text):
        return None
    return int(text.partition(b" ")[0])
