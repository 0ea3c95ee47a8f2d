"""A batch of messages."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pynsqd.core import published
from pynsqd.core.batch import Batch, Published
from pynsqd.core.ids import IdGenerator
from pynsqd.wire.encoder import message_frames, message_id, sized, split_frames
from tests.support.batches import WALL_NS


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=20), st.integers(0, 20))
def test_the_first_of_a_batch(bodies: list[bytes], count: int) -> None:
    ids = [b"%016x" % number for number in range(len(bodies))]
    batch = Batch(ids, message_frames(ids, bodies, 1))
    assert len(batch) == len(bodies)
    count = min(count, len(bodies))
    first = batch.first(count)
    assert len(first) == count
    assert first.ids == ids[:count]
    assert split_frames(first.frames) == split_frames(batch.frames)[:count]
    assert len(batch) == len(bodies)  # it is shared by channels: a cut leaves it as it was


@given(
    st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=20)
    | st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=200),
    st.integers(0, 5000),
)
def test_published_messages_are_framed_when_they_are_asked_for(bodies: list[bytes], before: int) -> None:
    generator = IdGenerator(5)
    generator.take(before, WALL_NS)
    head = published.pack_head(generator.take_first(len(bodies), WALL_NS), WALL_NS + 7)
    messages = sized(bodies)
    batch = Published(head, messages, len(bodies))
    assert (len(batch), batch.position, batch.fresh, batch.skipped) == (len(bodies), -1, True, 0)
    assert (batch.messages, batch.timestamp_ns()) == (messages, WALL_NS + 7)
    assert batch.frames == message_frames(batch.ids, bodies, WALL_NS + 7)
    assert batch.size == len(batch.frames)
    assert batch.ids == [message_id(frame) for frame in split_frames(batch.frames)]
    assert batch.frames is batch.frames  # once for all channels
    assert published.unpack(head + messages, len(bodies)) == (batch.ids, batch.frames)  # as from the log
    assert batch.timestamp_ns(len(batch.first(1).frames) % batch.size) == WALL_NS + 7


@given(st.integers(1, 9000), st.integers(0, 5000))
@settings(max_examples=30)
def test_ids_that_are_asked_for_late_are_those_that_were_given(count: int, before: int) -> None:
    generator, other = IdGenerator(5), IdGenerator(5)
    generator.take(before, WALL_NS)
    other.take(before, WALL_NS)
    head = published.pack_head(generator.take_first(count, WALL_NS), 1)
    batch = Published(head, sized([b"x"] * count), count)
    assert batch.ids == other.take(count, WALL_NS)
    assert len(set(batch.ids)) == count
    assert batch.ids == sorted(batch.ids)
    assert generator.take(1, WALL_NS) == other.take(1, WALL_NS) > batch.ids[-1:]
