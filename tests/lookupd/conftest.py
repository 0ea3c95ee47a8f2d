"""Lookupds for the tests of this folder."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.lookupds import Lookupd, running_lookupd

Start = Callable[..., Awaitable[Lookupd]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a lookupd with options of the test's own: ``await start(tombstone_lifetime_ns=1)``."""
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> Lookupd:
            return await stack.enter_async_context(running_lookupd(**options))

        yield begin


@pytest.fixture
async def lookupd(start: Start) -> Lookupd:
    """A lookupd with the default options."""
    return await start()
