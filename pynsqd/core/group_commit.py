"""Replies that wait for an fsync: which publishes one fsync covers, and what leaves when it has come (PROTOCOL 1.4)."""

from collections import deque
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from pynsqd.core.publisher import Failure, Pending, Publisher
from pynsqd.wire import encoder
from pynsqd.wire.errors import StorageError, failed

if TYPE_CHECKING:
    from pynsqd.core.topic import Topic


class GroupCommit:
    """The publishes of one turn whose replies wait for an fsync. Groups are settled in the order of their turns."""

    def __init__(self, awaiting: Mapping["Topic", list[Pending]]) -> None:
        """Have every publisher hold its replies, from the first that waits."""
        self._pending = [(topic, pending) for topic, all_of_it in awaiting.items() for pending in all_of_it]
        first: dict[Publisher, int] = {}
        for _, (publisher, reply, _) in self._pending:
            first[publisher] = min(reply, first.get(publisher, reply))
        for publisher, reply in first.items():
            publisher.hold(reply)
        self._publishers = list(first)

    def settle(self, failed: Mapping["Topic", StorageError]) -> None:
        """The fsync has come for all topics that the group is of, but for those in ``failed``."""
        failures: dict[Publisher, list[Failure]] = {}
        if failed:
            for topic, (publisher, reply, verb) in self._pending:
                if topic in failed:
                    failures.setdefault(publisher, []).append((reply, verb, failed[topic]))
        for publisher in self._publishers:
            publisher.let_go(failures.get(publisher, ()))


class HeldReplies:
    """The replies of one connection that wait: a group a turn, with what must stay behind it."""

    __slots__ = ("_free", "_groups")

    def __init__(self) -> None:
        self._free: list[bytes] = []
        self._groups: deque[tuple[int, list[bytes]]] = deque()  # the number of the first reply, and the replies

    def hold(self, replies: list[bytes], first: int) -> None:
        """Take all ``replies`` of a turn; from number ``first`` on they wait to be the oldest, see ``take_oldest``."""
        self.queue(replies[:first])
        self._groups.append((first, replies[first:]))

    def queue(self, replies: list[bytes]) -> None:
        """Put replies that wait for nothing behind those that do."""
        (self._groups[-1][1] if self._groups else self._free).extend(replies)

    def take_oldest(self) -> tuple[int, list[bytes]]:
        """Return the group that has waited longest, and forget it: the number of its first reply, and the replies."""
        return self._groups.popleft()

    def settle_oldest(self, failures: Sequence[Failure]) -> bool:
        """Let the oldest group out, up to one that has failed, and tell whether one has.

        Its error is then the last that is said: what waits behind it is forgotten.
        """
        first, replies = self.take_oldest()
        told = False
        if failures:
            reply, verb, error = min(failures, key=itemgetter(0))
            told = reply - first < len(replies)  # else an append in the same turn has failed before it
            if told:
                replies[reply - first :] = [encoder.error(failed(verb, error).payload)]
                self._groups.clear()
        self.let_out(replies)
        return told

    def let_out(self, replies: list[bytes]) -> None:
        """Let ``replies``, what has become of the oldest group, leave with the next write."""
        self._free += replies

    def take_free(self) -> list[bytes]:
        """Return what may leave, in the order of the commands, and forget it."""
        free, self._free = self._free, []
        return free

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._groups)
