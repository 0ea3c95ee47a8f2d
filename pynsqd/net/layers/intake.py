"""What a layered connection is read by: as much at a time as one without layers, and then the others first.

By itself libuv reads up to 32 times, 256 KiB each, before it looks at anybody else. To decode and carry out all of that
would take seconds in which the node does nothing else.
"""

import asyncio

from pynsqd.net.layers.layer import Above, Step
from pynsqd.net.turn import RECEIVE_BUFFER, Turn


class Intake(Step, asyncio.BufferedProtocol):
    """Stands between a socket and the first layer, which is told of the connection if it is given at once."""

    def __init__(self, turn: Turn, above: Above | None = None) -> None:
        self._turn = turn
        self._above = above
        self._paused = False  # those above want no more
        self._resting = False  # the others have their turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stand on ``transport``."""
        super().connection_made(transport)
        if self._above is not None:
            self._above.connection_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the turn's buffer for one read."""
        return self._turn.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read; after a full read there is more, and that has to wait."""
        if nbytes == RECEIVE_BUFFER:
            self._resting = True
            self.below.pause_reading()
            self._turn.soon(self._read_on)
        if self._above is not None:
            self._above.data_received(bytes(self._turn.receive_buffer[:nbytes]))

    def _read_on(self) -> None:
        self._resting = False
        if not self._paused and not self.below.is_closing():
            self.below.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write it as it is."""
        self.below.write(data)

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._paused = True
        self.below.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading, if it is not the others' turn."""
        self._paused = False
        if not self._resting:
            self.below.resume_reading()
