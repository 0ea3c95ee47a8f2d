"""How many connections a node lets in at a time (--max-connections)."""

import asyncio
from collections.abc import Callable
from typing import Any

from pynsqd.runtime.seldom import Seldom


class Door:
    """Turns away whoever comes when there are ``limit`` connections: with one answer, and a close."""

    def __init__(self, name: str, limit: int, answer: bytes, warn: Callable[..., Any]) -> None:
        """Take the name of the listener for the log, and what is said to those who are turned away; 0 is no limit."""
        self._name = name
        self.limit = limit
        self._answer = answer
        self._warn = Seldom(warn)
        self.refused = 0

    def refuses(self, transport: asyncio.Transport, open_now: int) -> bool:
        """Turn a new connection away if so many are open that there is no room; from then on it is nobody's."""
        if not self.is_shut(open_now):
            return False
        transport.set_protocol(asyncio.Protocol())
        transport.write(self._answer)
        transport.close()
        return True

    def is_shut(self, open_now: int) -> bool:
        """Tell whether so many are open that there is no room; then whoever asks is counted as turned away."""
        if not self.limit or open_now < self.limit:
            return False
        self.refused += 1
        self._warn("too many connections, refused", listener=self._name, limit=self.limit)
        return True
