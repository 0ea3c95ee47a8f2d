"""A step between a socket and who speaks on it: a protocol to what is below, a transport to what is above.

Layers can be stacked. None holds output back: what is written leaves at once, in one write of what is below, so the
write limits are those of the socket and ``pause_writing`` comes through as it is.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol, cast


class Above(Protocol):
    """Who gets what a layer has decoded: another layer, or any asyncio.Protocol."""

    def connection_made(self, transport: asyncio.BaseTransport, /) -> None:
        """Stand on ``transport``."""
        ...

    def data_received(self, data: bytes, /) -> None:
        """Take what the peer sent."""
        ...

    def eof_received(self) -> bool | None:
        """Take the end of it; true to go on writing."""
        ...

    def pause_writing(self) -> None:
        """Write no more for now."""
        ...

    def resume_writing(self) -> None:
        """Go on writing."""
        ...

    def connection_lost(self, exc: Exception | None, /) -> None:
        """The connection is gone."""
        ...


class Step(asyncio.Transport, asyncio.BaseProtocol):
    """Passes everything on but what is read and written."""

    below: asyncio.Transport
    _above: Above | None = None

    # -- to what is below: a protocol ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stand on ``transport``."""
        self.below = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def eof_received(self) -> bool:
        """Pass the end of the input on."""
        if self._above is None or not self._above.eof_received():
            self.close()
        return True

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._above is not None:
            self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on, and let go: each holds the other, and must not wait for the garbage collector."""
        above, self._above = self._above, None
        if above is not None:
            above.connection_lost(exc)

    # -- to what is above: a transport ---------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give what comes to ``protocol`` from now on."""
        self._above = cast(Above, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who gets what comes."""
        return cast(asyncio.BaseProtocol, self._above)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Ask the socket."""
        return self.below.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Tell whether nothing more can be written."""
        return self.below.is_closing()

    def close(self) -> None:
        """Close once everything has been written."""
        self.below.close()

    def abort(self) -> None:
        """Close at once."""
        self.below.abort()

    def is_reading(self) -> bool:
        """Tell whether more would be read."""
        return self.below.is_reading()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self.below.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        self.below.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits of the socket, in bytes."""
        self.below.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits of the socket, in bytes."""
        return self.below.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the socket has not taken yet."""
        return self.below.get_write_buffer_size()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write all of it at once."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """There is no half-close through a layer."""
        return False


class Layer(Step, asyncio.Protocol):
    """A step that codes: it has a ``data_received`` and a ``write`` of its own."""
