from collections.abc import AsyncIterator

import pytest

from tests.httpapi.running import RunningNode, running_node


@pytest.fixture
async def node() -> AsyncIterator[RunningNode]:
    async with running_node() as running:
        yield running
