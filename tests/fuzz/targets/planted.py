"""A bug four decisions deep: whether the fuzzer is led by what the code covers."""

from collections.abc import Iterable


def seeds() -> Iterable[bytes]:
    """Return nothing that helps."""
    yield b"    "


def run(data: bytes) -> None:
    """Raise for what begins with FUZZ."""
    if data[:1] != b"F":
        return
    if data[1:2] != b"U":
        return
    if data[2:3] != b"Z":
        return
    assert data[3:4] != b"Z", "four bytes deep"
