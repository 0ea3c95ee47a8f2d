"""What a client sends that has agreed on compression.

The first byte says which, the second how the rest is cut into reads.
"""

import zlib
from collections.abc import Iterable

from pynsqd.net.layers.codecs import Codec, CodecError, Deflate, Snappy
from tests.fuzz.dice import pieces

_MOST = 1 << 16  # plain bytes asked for at a time
_BLOCK = 1 << 16  # how much more a chunk of snappy may bring
_ALL = 1 << 22  # plain bytes in all, whereupon it is enough


def seeds() -> Iterable[bytes]:
    """Return streams of both kinds, some that expand a lot, and chunks of snappy that are not to be."""
    plain = [b"PUB t\n\0\0\0\2hi", b"x" * 100_000, bytes(range(256)) * 20, b"\0" * 3_000_000]
    for size in (0, 1, 13):
        for one in plain:
            for kind, codec in enumerate((Deflate(6), Snappy())):
                encoded = codec.encode(one)
                if len(encoded) < 4000:
                    yield bytes([kind, size]) + encoded
    identifier = b"\xff\x06\x00\x00sNaPpY"
    for chunk in (b"\0\xff\xff\xff", b"\1\0\0\0", b"\0\4\0\0abcd", b"\x80\xff\xff\xffx", b"\xfe\1\0\0x", b"\2\0\0\0"):
        yield b"\1\0" + identifier + chunk + identifier
    yield b"\0\0" + zlib.compress(b"with a header")


def run(data: bytes) -> None:
    """Raise unless it is decoded a bounded piece at a time, or refused, and the cut makes no difference."""
    if len(data) < 2:
        return
    whole, refused = _decode(_codec(data[0]), [data[2:]])
    again, refused_again = _decode(_codec(data[0]), pieces(data[2:], data[1]))
    assert refused == refused_again, "it depends on how the bytes were cut"
    assert refused or whole == again


def _codec(kind: int) -> Codec:
    return Snappy() if kind % 2 else Deflate(6)


def _decode(codec: Codec, reads: list[bytes]) -> tuple[bytes, bool]:
    plain = b""
    for read in reads:
        codec.feed(read)
        while codec.more and len(plain) < _ALL:
            try:
                piece = codec.decode(_MOST)
            except CodecError:
                return plain, True
            assert len(piece) <= _MOST + _BLOCK, "more than was asked for"
            plain += piece
    return plain[:_ALL], False
