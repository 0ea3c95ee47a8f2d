"""Messages as the log keeps them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynsqd.core import published
from pynsqd.core.ids import IdGenerator
from pynsqd.wire.constants import MESSAGE_HEADER
from pynsqd.wire.encoder import sized, split_frames
from tests.support.batches import WALL_NS

_HEAD = published.pack_head(IdGenerator(1).take_first(1, WALL_NS), WALL_NS)
_BODIES = st.lists(st.binary(max_size=20), min_size=1, max_size=20) | st.lists(
    st.binary(min_size=3, max_size=3), min_size=16, max_size=100
)


@given(_BODIES)
def test_what_was_published_is_unpacked(bodies: list[bytes]) -> None:
    ids, frames = published.unpack(_HEAD + sized(bodies), len(bodies))
    assert len(set(ids)) == len(bodies)
    assert [frame[MESSAGE_HEADER:] for frame in split_frames(frames)] == bodies


@given(_BODIES, st.integers(0, 1 << 32) | st.integers(0, 200))
def test_another_count_is_refused(bodies: list[bytes], count: int) -> None:
    if count != len(bodies):
        with pytest.raises(ValueError, match=r"too short|add up"):
            published.unpack(_HEAD + sized(bodies), count)


@given(_BODIES, st.data())
def test_another_size_is_refused(bodies: list[bytes], data: st.DataObject) -> None:
    messages = bytearray(sized(bodies))
    at = len(sized(bodies[: data.draw(st.integers(0, len(bodies) - 1))])) if len(bodies) > 1 else 0
    size = data.draw(st.integers(0, (1 << 32) - 1) | st.integers(0, 40))
    if size != int.from_bytes(messages[at : at + 4], "big"):
        messages[at : at + 4] = size.to_bytes(4, "big")
        try:
            _, frames = published.unpack(_HEAD + bytes(messages), len(bodies))
        except ValueError:
            return
        found = [frame[MESSAGE_HEADER:] for frame in split_frames(frames)]  # a body may look like sizes
        assert (len(found), sized(found)) == (len(bodies), bytes(messages))


@given(st.binary(max_size=60), st.integers(0, 12))
def test_of_any_bytes_all_is_unpacked_or_nothing(messages: bytes, count: int) -> None:
    try:
        ids, frames = published.unpack(_HEAD + messages, count)
    except ValueError:
        return
    bodies = [frame[MESSAGE_HEADER:] for frame in split_frames(frames)]
    assert (len(ids), len(bodies), sized(bodies)) == (count, count, messages)


def test_a_head_that_is_cut_short_is_refused() -> None:
    for size in range(len(_HEAD)):
        with pytest.raises(ValueError, match="too short"):
            published.unpack(_HEAD[:size], 1)
