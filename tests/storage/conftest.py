"""A log to read and write."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.log_bench import LogBench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[LogBench]:
    bench = LogBench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[LogBench]:
    """Segments of at most 1000 bytes."""
    bench = LogBench(tmp_path, 1000)
    yield bench
    bench.close()
