"""What every test may use, and which of them wait for work that is not done."""

import pytest

# Tests of what is known to be open. They go with the change that makes them pass.
OPEN = {
    "test_a_log_that_could_not_be_read_is_tried_again": "tried again when the probe says that the disk works",
}


@pytest.fixture
def anyio_backend() -> str:
    """The daemons run on asyncio; so do the tests."""
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect the open ones to fail."""
    for item in items:
        name = getattr(item, "originalname", item.name)
        if name in OPEN:
            item.add_marker(pytest.mark.xfail(reason=OPEN[name], strict=False))
