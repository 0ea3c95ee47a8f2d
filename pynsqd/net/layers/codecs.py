"""Compression without a socket: bytes in, bytes out, never more at a time than was asked for (PROTOCOL 1.6)."""

import zlib
from typing import Final, Protocol

from pynsqd.wire.errors import NsqError

# Snappy's framing format.
_IDENTIFIER: Final = b"\xff\x06\x00\x00sNaPpY"
_BLOCK: Final = 65536  # what a chunk holds at most, plain
_LARGEST_CHUNK: Final = 4 + 32 + _BLOCK + _BLOCK // 6  # checksum and the worst case of the format
_MOST_EXPANDED: Final = 22  # three bytes can stand for 64
_COST: Final = 64  # of a chunk, in bytes: an empty one, or one that is skipped, takes time too
_COMPRESSED, _PLAIN, _FIRST_SKIPPABLE, _STREAM = 0x00, 0x01, 0x80, 0xFF


class CodecError(NsqError):
    """What came is not in the format that was agreed."""


class Codec(Protocol):
    """Both directions of one connection."""

    @property
    def more(self) -> bool:
        """Whether ``decode`` may have more of what was fed."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the peer has said that nothing more comes."""
        ...

    def encode(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return ``data`` compressed, whole: the peer can read all of it."""
        ...

    def feed(self, data: bytes) -> None:
        """Take compressed bytes."""
        ...

    def decode(self, most: int) -> bytes:
        """Return the next plain bytes, about ``most`` at the most. Raises CodecError."""
        ...


class Deflate:
    """RFC 1951, without a header. ``level`` is that of what is sent."""

    def __init__(self, level: int) -> None:
        self._out = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._in = zlib.decompressobj(-zlib.MAX_WBITS)
        self._rest = b""
        self.more = False

    @property
    def ended(self) -> bool:
        """See ``Codec``."""
        return self._in.eof

    def encode(self, data: bytes | bytearray | memoryview) -> bytes:
        """See ``Codec``."""
        return self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH)

    def feed(self, data: bytes) -> None:
        """See ``Codec``."""
        self._rest += data
        self.more = True

    def decode(self, most: int) -> bytes:
        """See ``Codec``."""
        try:
            data = self._in.decompress(self._rest, most)
        except zlib.error as error:
            raise CodecError(str(error)) from None
        self._rest = self._in.unconsumed_tail
        # A full piece may be all there is, or zlib holds more back: only asking again tells.
        self.more = not self._in.eof and (len(data) == most or bool(self._rest))
        return data


class Snappy:
    """Snappy's framing format. Blocks and checksums are cramjam's, what comes is cut into chunks here.

    So nothing is decoded before its size is known, and identifiers can be repeated: pynsq sends one per command.
    """

    ended = False

    def __init__(self) -> None:
        from cramjam import DecompressionError, snappy  # noqa: PLC0415  # only who compresses pays for it

        self._out = snappy.Compressor()
        self._decompress = snappy.decompress
        self._error = DecompressionError
        self._data = b""
        self._pos = 0
        self._skip = 0  # bytes of a chunk that means nothing to us and has not come whole
        self._begun = False
        self.more = False

    def encode(self, data: bytes | bytearray | memoryview) -> bytes:
        """See ``Codec``."""
        self._out.compress(data)
        return bytes(self._out.flush())

    def feed(self, data: bytes) -> None:
        """See ``Codec``."""
        left = self._data[self._pos :]
        self._data = left + data if left else data
        self._pos = 0
        self.more = True

    def decode(self, most: int) -> bytes:
        """See ``Codec``."""
        chunks = self._take(most)
        if not chunks:
            return b""
        try:
            return bytes(self._decompress(b"".join((_IDENTIFIER, *chunks))))
        except self._error as error:
            raise CodecError(str(error)) from None

    def _take(self, most: int) -> list[bytes]:
        """Return whole chunks of data that together hold about ``most`` bytes."""
        data, pos, end = self._data, self._pos, len(self._data)
        chunks: list[bytes] = []
        size = 0
        while size < most:
            if self._skip:
                skipped = min(self._skip, end - pos)
                self._skip -= skipped
                pos += skipped
            if end - pos < 4:
                break
            size += _COST
            kind = data[pos]
            length = int.from_bytes(data[pos + 1 : pos + 4], "little")
            stop = pos + 4 + length
            if self._begun and _FIRST_SKIPPABLE <= kind < _STREAM:
                self._skip = 4 + length
                continue
            self._check(kind, length)
            if stop > end:
                break
            if kind == _STREAM:
                if data[pos:stop] != _IDENTIFIER:
                    raise CodecError("a broken stream identifier")
                self._begun = True
            else:
                chunks.append(data[pos:stop])
                size += length if kind == _PLAIN else min(_BLOCK, _MOST_EXPANDED * length)
            pos = stop
        self._pos = pos
        self.more = size >= most
        return chunks

    def _check(self, kind: int, length: int) -> None:
        if not self._begun and kind != _STREAM:
            raise CodecError("no stream identifier")
        if kind not in (_COMPRESSED, _PLAIN, _STREAM):
            raise CodecError(f"a chunk of type {kind}")
        if length > _LARGEST_CHUNK or (kind == _STREAM and length != len(_IDENTIFIER) - 4):
            raise CodecError(f"a chunk of {length} bytes")
