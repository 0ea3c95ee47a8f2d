"""What a turn did to the set of topics and channels, for whoever tells the rest of the cluster."""

from dataclasses import dataclass
from typing import Literal

ChangeKind = Literal[
    "topic_created", "topic_deleted", "channel_created", "channel_deleted", "paused", "unpaused", "durability_set"
]


@dataclass(frozen=True, slots=True)
class Change:
    """One topic or channel that came, went, or was paused, unpaused or changed; ``channel`` is empty for a topic."""

    kind: ChangeKind
    topic: str
    channel: str = ""
