"""A batch of messages."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pynsqd.core.batch import Batch
from pynsqd.core.ids import IdGenerator
from pynsqd.wire.encoder import message_frames, message_id, split_frames
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


@given(st.integers(1, 9000), st.integers(0, 5000))
@settings(max_examples=30)
def test_ids_that_are_asked_for_late_are_those_that_were_given(count: int, before: int) -> None:
    generator, other = IdGenerator(5), IdGenerator(5)
    generator.take(before, WALL_NS)
    other.take(before, WALL_NS)
    prefix, rests = generator.take_in_parts(count, WALL_NS)
    batch = Batch(None, message_frames(rests, [b"x"] * count, 1, prefix), count=count)
    ids = other.take(count, WALL_NS)
    assert len(batch) == count
    assert batch.ids == ids == [message_id(frame) for frame in split_frames(batch.frames)]
    assert generator.take(1, WALL_NS) == other.take(1, WALL_NS)
