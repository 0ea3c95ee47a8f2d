"""Whoever publishes: a V2 session, an HTTP connection, a route."""

from collections.abc import Sequence
from typing import Protocol

from pynsqd.wire.errors import StorageError


class Publisher(Protocol):
    """Holds the replies of one connection in the order of its requests until the turn has been committed.

    A publish appends its success reply first and is then queued on the topic with the index of that reply. The
    replies leave only after the batch of the turn is in the log, so success costs nothing more; a failed append
    calls ``publish_failed``, which puts the error in the place of the reply.
    """

    replies: list[bytes]

    def publish_failed(self, reply: int, verb: str, error: StorageError) -> None:
        """Replace reply number ``reply``, an OK that did not come true, by the error of ``verb`` (PUB, MPUB, DPUB)."""
        ...

    def hold(self, first: int) -> None:
        """Keep the replies from number ``first`` on back beyond the turn: an fsync has to come first.

        Called at most once a turn, and again in later turns before ``let_go``.
        """
        ...

    def let_go(self, failures: Sequence["Failure"]) -> None:
        """The fsync for the oldest hold has come: its replies may leave, but for those that have failed."""
        ...


# Who waits for a publish to come true: the publisher, the index of its reply, the verb.
Pending = tuple[Publisher, int, str]

# A publish that an fsync has not made true: the index of its reply at the time of the hold, the verb, the cause.
Failure = tuple[int, str, StorageError]
