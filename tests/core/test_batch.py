"""A batch of messages."""

from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core.batch import Batch
from pynsqd.wire.encoder import message_frames, split_frames


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
