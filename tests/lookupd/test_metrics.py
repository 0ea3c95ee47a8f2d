"""lookupd's /metrics, /livez and /readyz, over real sockets."""

import pytest

from lookupd.metrics import METRICS
from tests.lookupd.conftest import Start
from tests.support.lookupds import Lookupd
from tests.support.nodes import eventually
from tests.support.prometheus import scrape

HOST = "127.0.0.1"


async def test_all_that_is_named_is_there_and_counts(lookupd: Lookupd) -> None:
    client = await lookupd.node()
    await lookupd.node("other")
    await lookupd.connect()
    await lookupd.say(client, b"REGISTER t c", b"REGISTER t d", b"REGISTER u")
    await lookupd.post("/topic/create?topic=nobodys")
    await lookupd.post("/topic/tombstone?topic=u&node=ba:4151")
    seen = await scrape((HOST, lookupd.listeners.http.port))
    assert seen.names == {sample for metric in METRICS for sample in metric.samples}
    assert (seen("lookupd_topics"), seen("lookupd_channels"), seen("lookupd_tombstones")) == (3, 2, 1)
    assert seen("lookupd_producers", state="active") == 2
    assert seen("lookupd_producers", state="inactive") == 0
    assert seen("lookupd_connections") == 3

    async def watched() -> float:
        return (await scrape((HOST, lookupd.listeners.http.port)))("lookupd_event_loop_lag_seconds_count")

    await eventually(watched)


async def test_what_is_over_is_not_counted(start: Start) -> None:
    lookupd = await start(inactive_producer_timeout_ns=1, tombstone_lifetime_ns=1)
    client = await lookupd.node()
    await lookupd.say(client, b"REGISTER u")
    await lookupd.post("/topic/tombstone?topic=u&node=ba:4151")
    seen = await scrape((HOST, lookupd.listeners.http.port))
    assert (seen("lookupd_producers", state="active"), seen("lookupd_producers", state="inactive")) == (0, 1)
    assert seen("lookupd_tombstones") == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes(lookupd: Lookupd, path: str) -> None:
    response = await lookupd.request(path)
    assert (response.status, response.body) == (200, b"OK")
