"""Compression as a layer. What comes is decoded piece by piece, and every piece is a turn's worth at most."""

import asyncio
from collections.abc import Callable
from typing import Final

from pynsqd.net.layers.codecs import Codec, CodecError
from pynsqd.net.layers.layer import Above, Layer

# As much as an uncompressed client can bring with one read: who compresses gets no larger share of the node.
PIECE: Final = 1 << 16
# How much one read may grow. A body that is all the same may grow more, but it has a largest size.
_MOST_EXPANDED: Final = 100


class CompressionLayer(Layer):
    """Codes both directions with ``codec``.

    One read may decode to 100 times its size and ``slack`` bytes, else ``refuse`` is called; the rest of it is
    not looked at. Garbage closes without a word, as from nsqd.
    """

    def __init__(
        self, below: asyncio.Transport, above: Above, codec: Codec, slack: int, refuse: Callable[[], None]
    ) -> None:
        self.below = below
        self._above = above
        self._codec = codec
        self._slack = slack
        self._refuse: Callable[[], None] | None = refuse
        self._allowed = 0
        self._decoding = False  # there is more of the last read than a turn may take
        self._scheduled = False  # and the next piece comes by itself
        self._paused = False  # those above want no more
        self._eof = False
        self._dead = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Compress and write, all that the peer needs to read it."""
        if data and not self.below.is_closing():
            self.below.write(self._codec.encode(data))

    def data_received(self, data: bytes) -> None:
        """Decode what has come, or the first piece of it."""
        if self._dead:
            return
        self._codec.feed(data)
        self._allowed = self._slack + _MOST_EXPANDED * len(data)
        if self._paused:
            self._decoding = True
        elif not self._decoding:
            self._decode()

    def _decode(self) -> None:
        self._decoding = False
        if self._dead or self.below.is_closing():
            return
        try:
            data = self._codec.decode(PIECE)
        except CodecError:
            self._dead = True
            self.below.close()
            return
        self._allowed -= len(data)
        if self._allowed < 0 and self._refuse is not None:
            self._dead = True
            self._refuse()
            return
        if data and self._above is not None:
            self._above.data_received(data)
        if self._codec.more and not self.below.is_closing():
            self._decoding = True
            self.below.pause_reading()
            self._schedule()
        elif self._eof or self._codec.ended:
            super().eof_received()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        if self._paused:
            return
        self._decode()
        self._read_on()

    def _read_on(self) -> None:
        if not (self._decoding or self._paused or self._dead or self.below.is_closing()):
            self.below.resume_reading()

    def pause_reading(self) -> None:
        """Give no more, of what was read too."""
        self._paused = True
        self.below.pause_reading()

    def resume_reading(self) -> None:
        """Go on with what was read, then read."""
        self._paused = False
        if self._decoding:
            self._schedule()
        self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on and let go."""
        self._dead = True
        self._refuse = None
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """Pass the end on, after what came before it."""
        self._eof = True
        return True if self._decoding else super().eof_received()
