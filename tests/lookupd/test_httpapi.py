"""lookupd/httpapi: every endpoint, over real sockets (PROTOCOL 6)."""

import time

import pytest

from tests.lookupd.conftest import Start
from tests.support.lookupds import Lookupd

V1_JSON = {"content-type": "application/json; charset=utf-8", "x-nsq-content-type": "nsq; version=1.0"}


async def test_ping_is_plain(lookupd: Lookupd) -> None:
    response = await lookupd.request("/ping")
    assert (response.status, response.body) == (200, b"OK")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert "x-nsq-content-type" not in response.headers


async def test_json_is_v1_and_compact(lookupd: Lookupd) -> None:
    response = await lookupd.request("/info")
    assert (response.status, response.body) == (200, b'{"version":"1.3.0"}')
    assert response.headers.items() >= V1_JSON.items()


async def test_empty_lookupd(lookupd: Lookupd) -> None:
    assert await lookupd.get("/topics") == {"topics": []}
    assert await lookupd.get("/nodes") == {"producers": []}
    assert await lookupd.get("/debug") == {}
    assert await lookupd.get("/channels?topic=nope") == {"channels": []}


@pytest.mark.parametrize(
    ("method", "target", "status", "message"),
    [
        ("GET", "/channels", 400, "MISSING_ARG_TOPIC"),
        ("GET", "/channels?topic=%zz", 400, "INVALID_REQUEST"),
        ("GET", "/lookup", 400, "MISSING_ARG_TOPIC"),
        ("GET", "/lookup?a;b", 400, "INVALID_REQUEST"),
        ("GET", "/lookup?topic=nope", 404, "TOPIC_NOT_FOUND"),
        ("GET", "/lookup?topic=", 404, "TOPIC_NOT_FOUND"),
        ("POST", "/topic/create", 400, "MISSING_ARG_TOPIC"),
        ("POST", "/topic/create?x=%", 400, "INVALID_REQUEST"),
        ("POST", "/topic/create?topic=$", 400, "INVALID_ARG_TOPIC"),
        ("POST", "/topic/create?topic=*", 400, "INVALID_ARG_TOPIC"),
        ("POST", "/topic/delete", 400, "MISSING_ARG_TOPIC"),
        ("POST", "/topic/delete?;", 400, "INVALID_REQUEST"),
        ("POST", "/topic/tombstone?node=n", 400, "MISSING_ARG_TOPIC"),
        ("POST", "/topic/tombstone?topic=t", 400, "MISSING_ARG_NODE"),
        ("POST", "/channel/create?channel=c", 400, "MISSING_ARG_TOPIC"),
        ("POST", "/channel/create?topic=t", 400, "MISSING_ARG_CHANNEL"),
        ("POST", "/channel/create?topic=$&channel=$", 400, "INVALID_ARG_TOPIC"),
        ("POST", "/channel/create?topic=*&channel=c", 400, "INVALID_ARG_TOPIC"),
        ("POST", "/channel/create?topic=t&channel=$", 400, "INVALID_ARG_CHANNEL"),
        ("POST", "/channel/delete?topic=t&channel=nope", 404, "CHANNEL_NOT_FOUND"),
        ("POST", "/channel/delete?topic=t&channel=", 400, "INVALID_ARG_CHANNEL"),
        ("GET", "/nope", 404, "NOT_FOUND"),
        ("GET", "/topic/create", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/lookup", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_refusals(lookupd: Lookupd, method: str, target: str, status: int, message: str) -> None:
    response = await lookupd.request(target, method)
    assert (response.status, response.body) == (status, b'{"message":"%s"}' % message.encode())
    assert response.headers.items() >= V1_JSON.items()


async def test_lookup_shows_producers(lookupd: Lookupd) -> None:
    client = await lookupd.node("ba<&>")
    await lookupd.say(client, b"REGISTER t c", b"REGISTER u")
    response = await lookupd.request("/lookup?topic=t")
    assert b'{"channels":["c"],"producers":[{"remote_address":"127.0.0.1:' in response.body
    assert response.body.endswith(
        b'","hostname":"h","broadcast_address":"ba\\u003c\\u0026\\u003e","tcp_port":4150,"http_port":4151,"version":"1.3.0"}]}'
    )
    assert await lookupd.get("/channels?topic=t") == {"channels": ["c"]}


async def test_nodes_shows_topics_and_tombstones(lookupd: Lookupd) -> None:
    client = await lookupd.node()
    await lookupd.say(client, b"REGISTER t c", b"REGISTER u")
    await lookupd.post("/topic/tombstone?topic=u&node=ba:4151")
    (node,) = (await lookupd.get("/nodes"))["producers"]
    assert list(node)[-3:] == ["version", "tombstones", "topics"]
    assert (node["topics"], node["tombstones"]) == (["t", "u"], [False, True])
    assert (await lookupd.get("/lookup?topic=u"))["producers"] == []
    assert len((await lookupd.get("/lookup?topic=t"))["producers"]) == 1


async def test_debug_shows_every_registration(lookupd: Lookupd) -> None:
    before_ns = time.time_ns()
    client = await lookupd.node()
    await lookupd.say(client, b"REGISTER t c")
    await lookupd.post("/channel/create?topic=t&channel=nobodys")
    await lookupd.post("/topic/tombstone?topic=t&node=ba:4151")
    shown = await lookupd.get("/debug")
    assert list(shown) == ["channel:t:c", "client::", "topic:t:"]
    (entry,) = shown["client::"]
    assert list(entry) == sorted(entry)
    assert entry["id"] == (await lookupd.get("/nodes"))["producers"][0]["remote_address"]
    assert before_ns <= entry["last_update"] <= time.time_ns()
    assert (entry["tombstoned"], entry["tombstoned_at"]) == (False, -6795364578871345152)
    (entry,) = shown["topic:t:"]
    assert entry["tombstoned"] is True
    assert before_ns <= entry["tombstoned_at"] <= time.time_ns()


async def test_tombstone_ends_after_its_lifetime(start: Start) -> None:
    lookupd = await start(tombstone_lifetime_ns=1)
    client = await lookupd.node()
    await lookupd.say(client, b"REGISTER t")
    await lookupd.post("/topic/tombstone?topic=t&node=ba:4151")
    assert len((await lookupd.get("/lookup?topic=t"))["producers"]) == 1


async def test_inactive_producer_is_hidden(start: Start) -> None:
    lookupd = await start(inactive_producer_timeout_ns=1)
    client = await lookupd.node()
    await lookupd.say(client, b"REGISTER t")
    assert await lookupd.get("/lookup?topic=t") == {"channels": [], "producers": []}
    assert await lookupd.get("/nodes") == {"producers": []}


async def test_create_and_delete(lookupd: Lookupd) -> None:
    client = await lookupd.node()
    await lookupd.say(client, b"REGISTER t c")
    await lookupd.post("/topic/create?topic=u%23ephemeral")
    await lookupd.post("/channel/create?topic=v&channel=d")
    assert await lookupd.get("/topics") == {"topics": ["t", "u#ephemeral", "v"]}
    assert await lookupd.get("/lookup?topic=v") == {"channels": ["d"], "producers": []}
    await lookupd.post("/channel/delete?topic=t&channel=c")
    await lookupd.post("/topic/delete?topic=v")
    await lookupd.post("/topic/delete?topic=u%23ephemeral")
    await lookupd.post("/topic/delete?topic=$")
    assert await lookupd.get("/topics") == {"topics": ["t"]}
    assert await lookupd.get("/channels?topic=t") == {"channels": []}
    assert await lookupd.get("/channels?topic=v") == {"channels": []}


async def test_star_is_no_topic_name(lookupd: Lookupd) -> None:
    """In nsqlookupd it means all topics, and /topic/delete?topic=* deletes them all (DEVIATIONS)."""
    client = await lookupd.node()
    await lookupd.say(client, b"REGISTER t c")
    for target in ("/topic/delete?topic=*", "/topic/tombstone?topic=*&node=ba:4151"):
        response = await lookupd.request(target, "POST")
        assert (response.status, response.body) == (400, b'{"message":"INVALID_ARG_TOPIC"}')
    assert await lookupd.get("/channels?topic=*") == {"channels": []}
    assert (await lookupd.request("/lookup?topic=*")).status == 404
    assert len((await lookupd.get("/lookup?topic=t"))["producers"]) == 1
