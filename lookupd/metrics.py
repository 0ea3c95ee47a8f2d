"""The figures of a lookupd for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sized
from typing import Final

from lookupd.registration_db import RegistrationDB
from pynsqd.runtime.metrics import PROCESS, Histogram, Metric, Page, add_build, add_process, labels

BUILD: Final = Metric("lookupd_build_info", "gauge", "Always 1; the labels tell the versions.")
TOPICS: Final = Metric("lookupd_topics", "gauge", "Topics, also those without a node.")
CHANNELS: Final = Metric("lookupd_channels", "gauge", "Channels, also those without a node.")
PRODUCERS: Final = Metric("lookupd_producers", "gauge", "Connected nodes; inactive ones have not pinged for too long.")
TOMBSTONES: Final = Metric("lookupd_tombstones", "gauge", "Topics of nodes that are hidden at present.")
CONNECTIONS: Final = Metric("lookupd_connections", "gauge", "Open TCP connections.")
LAG: Final = Metric("lookupd_event_loop_lag_seconds", "histogram", "How late the event loop is, four times a second.")
METRICS: Final = (BUILD, TOPICS, CHANNELS, PRODUCERS, TOMBSTONES, CONNECTIONS, LAG, *PROCESS)


class Metrics:
    """Prints them; ``loop_lag`` is observed by whoever watches the loop."""

    def __init__(self, db: RegistrationDB, connections: Sized) -> None:
        self.loop_lag = Histogram()
        self._db = db
        self._connections = connections
        self._started_ns = time.time_ns()

    def text(self, now_ns: int) -> str:
        """Return the page at this time of day."""
        page = Page()
        counts = self._db.counts(now_ns)
        add_build(page, BUILD)
        page.add(TOPICS, counts.topics)
        page.add(CHANNELS, counts.channels)
        page.add(PRODUCERS, counts.active_producers, labels(state="active"))
        page.add(PRODUCERS, counts.inactive_producers, labels(state="inactive"))
        page.add(TOMBSTONES, counts.tombstones)
        page.add(CONNECTIONS, len(self._connections))
        page.add_histogram(LAG, self.loop_lag)
        add_process(page, self._started_ns)
        return page.text()
