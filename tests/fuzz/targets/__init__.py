"""What is fuzzed. Each module has ``seeds()``, inputs to start from, and ``run(data)``, which raises on a finding."""

from collections.abc import Iterable
from importlib import import_module
from typing import Final, Protocol, cast

# Name of the module, and how many inputs make up the short form: some seconds each.
TARGETS: Final = {
    "auth_answer": 3_000,
    "checkpoint": 20_000,
    "codecs": 1_000,
    "deferred_store": 1_500,
    "identify": 20_000,
    "ingest": 2_000,
    "lookup_peer": 2_000,
    "lookupd": 15_000,
    "metadata": 20_000,
    "session": 1_000,
    "tls": 800,
    "topic_log": 1_500,
}


class Target(Protocol):
    """A module of this package."""

    def seeds(self) -> Iterable[bytes]:
        """Return inputs that reach far by themselves."""
        ...

    def run(self, data: bytes) -> None:
        """Take any bytes; whatever it raises is a finding."""
        ...


def target(name: str) -> Target:
    """Return the target of that name."""
    return cast(Target, import_module(f"{__name__}.{name}"))
