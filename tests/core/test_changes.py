"""Changes are data."""

from pynsqd.core.changes import Change


def test_a_change_of_a_topic_has_no_channel() -> None:
    assert Change("topic_created", "t") == Change("topic_created", "t", "")
    assert len({Change("paused", "t"), Change("paused", "t", "c"), Change("paused", "t")}) == 2
