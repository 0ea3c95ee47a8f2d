"""Log lines that anybody could cause."""

from pynsqd.runtime.seldom import Seldom


def test_one_line_a_minute_with_how_often() -> None:
    said, now = [], [1000.0]
    seldom = Seldom(lambda text, **more: said.append((text, more)), lambda: now[0])
    for _ in range(5):
        seldom("refused", listener="TCP")
    assert said == [("refused", {"times": 1, "listener": "TCP"})]
    now[0] += 59.9
    seldom("refused", listener="TCP")
    assert len(said) == 1
    now[0] += 0.1
    seldom("refused", listener="TCP")
    assert said[1:] == [("refused", {"times": 6, "listener": "TCP"})]
