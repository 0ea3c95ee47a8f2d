"""What the channels of a topic still owe, as plain data for a checkpoint, and back.

A checkpoint of a topic is a map:

    end, sequence    the end of the log, and the number of messages before it
    serial           the next serial of its deferred messages
    stop             [position, sequence] up to which messages were given to channels, None while all were
    waiting_from     the serial from which deferred messages wait for the topic to flow
    waiting_far      [[bucket, messages], ...] of those that are only on disk
    dropped          [[position, sequence, end, sequence there], ...] of the log that no channel reads any more
    dropped_serials  [[from, up to], ...] of deferred messages that no channel gets
    released         log time in ns: what was due by then is waiting or in flight, and owed by name
    wall             the time of day then, in ns
    ids_grow_from    position from which on later messages of the log have higher ids
    unsaved          whether the names of ``channels`` could not be saved elsewhere
    channels         name to {cursor: [position, skip], from: serial, own_from: serial,
                     far: [[bucket, messages], ...], owed: [[position, ids, attempts], ...], superseded: ids}

``cursor``: everything from there on was not handed out yet. ``ids`` are 16 bytes each, in one piece; ``attempts`` is
what their next delivery will say, one number for all or a list. ``superseded`` lies ahead of the cursor, but is owed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynsqd.core.batch import Batch
from pynsqd.core.channel import Channel
from pynsqd.core.dropped import Dropped
from pynsqd.core.in_flight import Delivery
from pynsqd.core.log import DEFERRED_BIT, LogEnd, TopicLog, bucket_at
from pynsqd.wire.constants import ID_LENGTH
from pynsqd.wire.encoder import attempts, next_attempt, split_frames, with_attempts

if TYPE_CHECKING:
    from pynsqd.core.topic import Topic

_SECOND_ATTEMPT = 2
# How far ahead of a cursor is looked for what was handed out after the checkpoint, and how much is read at a time.
_NEAR = 1 << 26
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Standing:
    """The checkpoint of a topic, and what of its files it needs."""

    state: dict[str, Any]
    needed_from: int  # position; nothing before it in the log is owed
    buckets: set[int]  # of deferred messages that are owed


def describe(topic: "Topic", released_ns: int, wall_ns: int, ids_ns: int, *, unsaved: bool = False) -> Standing:
    """Return where the channels of a topic with a log stand, after a turn at this log time and time of day.

    Ids were given up to ``ids_ns``. ``unsaved`` says that the names of the channels may be nowhere else.
    """
    log = topic.log
    assert log is not None  # noqa: S101 - an ephemeral topic is not described
    cursors = [topic.read_limit[0]]
    needed = []
    buckets: set[int] = set()
    channels = {}
    for channel in topic.channels.values():
        if channel.ephemeral:
            continue
        cursor = channel.backlog.cursor()
        owed = []
        cursors.append(cursor[0])
        for position, ids, frames in channel.owed():
            if position < 0:
                continue  # in memory only: what --durability=memory means
            if position & DEFERRED_BIT:
                buckets.add(bucket_at(position))
            else:
                needed.append(position)
            owed.append([position, b"".join(ids), _attempts(frames)])
        channels[channel.name] = {
            "cursor": list(cursor),
            "from": channel.deferred.from_serial,
            "own_from": channel.deferred.own_from,
            "far": list(channel.deferred.far.items()),
            "owed": owed,
            "superseded": b"".join(channel.backlog.superseded_ahead(cursor[0])),
        }
    topic.dropped.forget(min(cursors))
    state = {
        "end": log.end,
        "sequence": log.end_sequence,
        "serial": topic.deferrals.next_serial,
        "stop": None if topic.flowing else list(topic.read_limit),
        "waiting_from": topic.deferrals.waiting_from,
        "waiting_far": topic.deferrals.far_waiting(),
        "dropped": topic.dropped.ranges,
        "dropped_serials": topic.deferrals.dropped,
        "released": released_ns,
        "wall": wall_ns,
        "ids": ids_ns,
        "ids_grow_from": topic.ids_grow_from,
        "unsaved": unsaved,
        "channels": channels,
    }
    return Standing(state, min(cursors + needed), buckets)


def _attempts(frames: list[bytes] | None) -> int | list[int]:
    if frames is None:
        return _SECOND_ATTEMPT
    counts = [attempts(frame) for frame in frames]
    return counts[0] if counts.count(counts[0]) == len(counts) else counts


def move_stragglers(topic: "Topic", below: int, most: int) -> None:
    """Append again what is owed from before ``below``, so that a few messages do not pin the log.

    Not if they are more than ``most`` bytes: then they may as well stay. Raises StorageError.
    """
    stragglers = list(_stragglers(topic, below))
    if sum(len(frames) for _, _, frames in stragglers) > most:
        return
    for channel, place, frames in stragglers:
        place.position = topic.append_owed(channel.name, frames, len(split_frames(frames)))


def _stragglers(topic: "Topic", below: int) -> Iterator[tuple[Channel, Batch | Delivery, bytes]]:
    """Yield (channel, what has the position, frames as they will be delivered next) for what lies before ``below``."""
    for channel in topic.channels.values():
        if channel.ephemeral or channel.in_mid_turn or channel.backlog.cursor()[0] < below:
            continue  # what it has not been handed out yet is no straggler
        for consumer in channel.consumers:
            for delivery, ids in consumer.in_flight.by_delivery():
                if 0 <= delivery.position < below:
                    yield channel, delivery, b"".join(next_attempt(delivery.frame(one)) for one in ids)
        for batch in channel.backlog.came_back():
            if 0 <= batch.position < below:
                yield channel, batch, batch.frames


def keep_in_memory_ones(topic: "Topic") -> None:
    """Put what is only in memory into the log: the node stops. Raises StorageError."""
    log = topic.log
    assert log is not None  # noqa: S101 - an ephemeral topic keeps nothing
    topic.deferrals.keep_in_memory_ones()
    for channel in topic.channels.values():
        if channel.ephemeral:
            continue
        for batch in channel.backlog.in_memory():
            if batch.position < 0:
                batch.position = log.append_owed(channel.name, batch.frames, len(batch.ids))
                batch.fresh = False


def end_of(state: Mapping[str, Any]) -> LogEnd:
    """Return how far the log of a topic had come by the checkpoint ``state``."""
    return LogEnd(state["end"], state["sequence"], state["serial"])


def restore(topic: "Topic", state: Mapping[str, Any] | None) -> None:
    """Let the channels of a topic that was just opened stand where ``state`` says.

    Without a state everything in the log is delivered again: a checkpoint that is missing costs duplicates, no
    messages. What came back to a channel after the checkpoint is found in the log. What the log has let go of since,
    or all of it if the topic was deleted and made anew, is nobody's any more. Raises StorageError.
    """
    log = topic.log
    assert log is not None  # noqa: S101 - an ephemeral topic is not restored
    if state is None:
        state = _from_the_start(topic)
    stop = state["stop"]
    if stop and not topic.flowing:
        topic.stand_at(*_kept_from(log, stop[0], stop[1]), state["waiting_from"])
    elif not topic.channels:
        topic.stand_at(*_kept_from(log, state["end"], state["sequence"]), state["serial"])
    # Else, if it is paused, that was after the checkpoint, and what came before the end is the channels'.
    topic.ids_grow_from = state.get("ids_grow_from", 0)
    topic.dropped = Dropped(state.get("dropped", []))
    topic.deferrals.dropped = [(first, end) for first, end in state.get("dropped_serials", [])]
    again = _since_checkpoint(topic, state)
    came_back: dict[tuple[str, bytes], int] = {}
    for channel in topic.channels.values():
        known = state["channels"].get(channel.name)
        if known is None:  # made after the checkpoint: the first channel gets what waited on the topic
            position, first = (stop[0], state["waiting_from"]) if stop else (state["end"], state["serial"])
            known = {"cursor": [position, 0], "from": first, "own_from": state["serial"], "owed": [], "superseded": b""}
        latest = _latest(again.get(channel.name, []))
        came_back |= {(channel.name, one): batch.position for batch in latest for one in batch.ids}
        _restore_channel(topic, channel, known, latest)
        channel.deferred.from_serial = known["from"]
        channel.deferred.own_from = known.get("own_from", known["from"])
    topic.deferrals.recover(state, came_back)


def _from_the_start(topic: "Topic") -> dict[str, Any]:
    log = topic.log
    assert log is not None  # noqa: S101 - see restore
    sequence = log.read(log.start, log.start, 0)[2]
    stop = None if topic.flowing else [log.start, sequence]
    first = {"end": log.start, "sequence": sequence, "stop": stop}
    # The clock may have been set back, and with no checkpoint the ids are not known to go on where they were.
    return {**first, "serial": 0, "waiting_from": 0, "released": 0, "ids_grow_from": log.end, "channels": {}}


def _kept_from(log: TopicLog, position: int, sequence: int) -> tuple[int, int]:
    """Return the first position from ``position`` on that the log still has, and its sequence number."""
    return (position, sequence) if position >= log.start else (log.start, log.read(log.start, log.start, 0)[2])


def _since_checkpoint(topic: "Topic", state: Mapping[str, Any]) -> dict[str, list[Batch]]:
    """Return by channel what came back after the checkpoint, to be delivered at once or deferred."""
    log = topic.log
    assert log is not None  # noqa: S101 - see restore
    found: dict[str, list[Batch]] = {}
    for name, batch in log.owed_since(state["end"]):
        found.setdefault(name, []).append(batch)
    for record in topic.deferrals.requeued_since(state["serial"]):
        found.setdefault(record.channel, []).append(Batch(record.ids, record.frames, record.position, fresh=False))
    return found


def _latest(again: list[Batch]) -> list[Batch]:
    """Return what came back, each message as it came back last: the one with the most attempts."""
    last: dict[bytes, tuple[int, int]] = {}
    for index, batch in enumerate(again):
        for one, frame in zip(batch.ids, split_frames(batch.frames), strict=True):
            last[one] = max(last.get(one, (0, 0)), (attempts(frame), index))
    latest = [batch.only([one for one in batch.ids if last[one][1] == index]) for index, batch in enumerate(again)]
    return [batch for batch in latest if batch.ids]


def _restore_channel(topic: "Topic", channel: Channel, known: Mapping[str, Any], latest: list[Batch]) -> None:
    came_back = {one for batch in latest for one in batch.ids}
    unlisted = set(came_back)
    owed: list[Batch] = []
    for position, joined, counts in known["owed"]:
        ids = _cut_ids(joined)
        unlisted.difference_update(ids)
        frames = topic.fetch(position, ids)
        each = dict(zip(ids, counts if isinstance(counts, list) else [counts] * len(ids), strict=True))
        keep = [one for one in ids if one in frames and one not in came_back]
        if keep:
            joined_frames = b"".join(with_attempts(frames[one], each[one]) for one in keep)
            owed.append(Batch(keep, joined_frames, position, fresh=False))
    owed += [batch for batch in latest if not batch.position & DEFERRED_BIT]  # the others wait until they are due
    position, skip = known["cursor"]
    if topic.log is not None and position < topic.log.start:  # ``skip`` is of a record that is gone
        position, skip = topic.log.start, 0
    ahead = unlisted.union(_cut_ids(known["superseded"]))
    channel.resume(position, skip, owed, _find(topic, position, ahead))


def _cut_ids(joined: bytes) -> list[bytes]:
    return [joined[at : at + ID_LENGTH] for at in range(0, len(joined), ID_LENGTH)]


def _find(topic: "Topic", position: int, ids: set[bytes]) -> set[bytes]:
    """Return those of ``ids`` that the log has from ``position`` on.

    They were handed out within one checkpoint interval, so they are near; and where ids grow it ends with the highest.
    """
    found: set[bytes] = set()
    highest = max(ids, default=b"")
    stop = min(topic.read_limit[0], position + _NEAR)
    while position < stop and len(found) < len(ids):
        batches, position, _ = topic.read(position, stop, _CHUNK)
        for batch in batches:
            found |= ids.intersection(batch.ids)
        if batches and batches[-1].position >= topic.ids_grow_from and batches[-1].ids[-1] > highest:
            break
    return found
