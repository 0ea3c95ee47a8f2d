"""docs/deploy/grafana-dashboard.json names metrics that exist, with labels that they have."""

import json
import re
from pathlib import Path
from typing import Any, Final

import lookupd.metrics
import pynsqd.httpapi.metrics
from tests.support.lookupds import running_lookupd
from tests.support.nodes import inside
from tests.support.prometheus import scrape

FILE: Final = Path(__file__).parents[2] / "docs" / "deploy" / "grafana-dashboard.json"
_NAME: Final = re.compile(r"\b(?:pynsqd|lookupd|process)_\w+")
_GIVEN: Final = {"job", "instance"}  # by Prometheus, to everything that it scrapes


def expressions() -> list[str]:
    dashboard = json.loads(FILE.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    variables = [one["definition"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    return [target["expr"] for panel in panels for target in panel["targets"]] + variables


def test_every_metric_exists() -> None:
    named = {name for expression in expressions() for name in _NAME.findall(expression)}
    known = {
        sample for metric in (*pynsqd.httpapi.metrics.METRICS, *lookupd.metrics.METRICS) for sample in metric.samples
    }
    assert named - known == set()
    assert len(named) > 25


async def test_every_label_exists(tmp_path: Path) -> None:
    async with running_lookupd() as lookup:
        options: dict[str, Any] = {"nsqlookupd_tcp_addresses": (lookup.address,), "broadcast_address": "127.0.0.1"}
        async with inside(tmp_path, **options) as node:
            await node.api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
            scrapes = [await scrape(node.api.address), await scrape(("127.0.0.1", lookup.listeners.http.port))]
    has = {name: {key for key, _ in labels} for one in scrapes for name, labels in one.samples}
    for expression in expressions():
        for name, matchers in re.findall(r"\b((?:pynsqd|lookupd|process)_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)[=!]~?\"", matchers)) <= has[name] | _GIVEN, expression


def test_panels_do_not_overlap() -> None:
    taken = set()
    for panel in json.loads(FILE.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
