"""How long the disk takes."""

from pynsqd.runtime.metrics import Histogram


class Timings:
    """What the logs of a node have taken for some of their appends, and for their fsyncs."""

    __slots__ = ("appends", "syncs")

    def __init__(self) -> None:
        self.appends = Histogram()
        self.syncs = Histogram()
