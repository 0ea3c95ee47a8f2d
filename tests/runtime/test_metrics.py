"""Prometheus' text format, held against Prometheus' own parser."""

import os
from itertools import pairwise

import psutil
from prometheus_client.parser import text_string_to_metric_families

from pynsqd.runtime.metrics import PROCESS, Histogram, Metric, Page, add_build, add_process, labels

DEPTH = Metric("depth", "gauge", "How many wait.")
DONE = Metric("done_total", "counter", "How many are done.")
TIME = Metric("time_seconds", "histogram", "How long it takes.")


def test_samples_are_printed_by_metric() -> None:
    page = Page()
    for topic in ("t", "u"):
        page.add(DEPTH, 7, labels(topic=topic))
        page.add(DONE, 2.5, labels(topic=topic))
    depth, done = text_string_to_metric_families(page.text())
    assert (depth.name, depth.type, depth.documentation) == ("depth", "gauge", "How many wait.")
    assert (done.name, done.type) == ("done", "counter")  # the parser takes the end off
    assert [(one.labels, one.value) for one in depth.samples] == [({"topic": "t"}, 7), ({"topic": "u"}, 7)]
    assert [(one.name, one.value) for one in done.samples] == [("done_total", 2.5), ("done_total", 2.5)]


def test_any_label_can_be_read_again() -> None:
    page = Page()
    page.add(DEPTH, 1, labels(lookupd='a"b\\c\nd', other="é"))
    ((sample,),) = [family.samples for family in text_string_to_metric_families(page.text())]
    assert sample.labels == {"lookupd": 'a"b\\c\nd', "other": "é"}


def test_a_histogram_counts_up() -> None:
    histogram = Histogram()
    for time_ns in (0, 1, 4095, 4096, 1_000_000, 3_000_000_000, 60_000_000_000, 2**63):
        histogram.observe(time_ns)
    page = Page()
    page.add_histogram(TIME, histogram)
    (family,) = text_string_to_metric_families(page.text())
    assert {sample.name for sample in family.samples} == set(TIME.samples)
    buckets = {float(one.labels["le"]): one.value for one in family.samples if one.name.endswith("_bucket")}
    assert list(buckets) == sorted(buckets)
    assert all(before <= after for before, after in pairwise(buckets.values()))
    assert [buckets[2**bits / 1e9] for bits in (12, 13, 19, 20, 31, 32, 34)] == [3, 4, 4, 5, 5, 6, 6]
    assert buckets[float("inf")] == 8
    values = {one.name: one.value for one in family.samples}
    assert values["time_seconds_count"] == 8
    assert round(values["time_seconds_sum"]) == round((2**63 + 63_001_008_192) / 1e9)


def test_what_the_process_uses() -> None:
    page = Page()
    add_process(page, 1_500_000_000)
    found = {family.samples[0].name: family.samples[0].value for family in text_string_to_metric_families(page.text())}
    assert set(found) == {metric.name for metric in PROCESS}
    assert abs(found["process_resident_memory_bytes"] - psutil.Process().memory_info().rss) < 10_000_000
    assert found["process_open_fds"] == len(os.listdir("/proc/self/fd")) - 1
    assert found["process_start_time_seconds"] == 1.5


def test_versions() -> None:
    page = Page()
    add_build(page, Metric("x_build_info", "gauge", "Versions."))
    (family,) = text_string_to_metric_families(page.text())
    assert family.samples[0].value == 1
    assert family.samples[0].labels["nsqd_version"] == "1.3.0"
