"""The seam to the connection of a V2 client (net.connection)."""

from typing import Protocol


class Peer(Protocol):
    """The connection of a session, as the session sees it."""

    def flush(self) -> None:
        """Write what ``take_output`` gives and close if the session is closing. Called at the end of a turn."""
        ...

    def pause_reading(self) -> None:
        """Call ``receive`` no more, as far as that is possible."""
        ...

    def resume_reading(self) -> None:
        """Read again, and flush at the end of this turn."""
        ...
