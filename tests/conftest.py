"""What every test may use."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The daemons run on asyncio; so do the tests."""
    return "asyncio"
