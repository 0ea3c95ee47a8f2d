"""httpapi/topics: /topic/* and /channel/* (PROTOCOL 2.2)."""

import json

import pytest

from pynsqd.core.changes import Change
from pynsqd.options import Options
from tests.httpapi.running import RunningNode, running_node


async def ok(node: RunningNode, line: str) -> None:
    answer = await node.ask(f"POST {line}")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert "content-type" not in answer.headers
    assert answer.headers["x-nsq-content-type"] == "nsq; version=1.0"


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        *(
            (f"/topic/{verb}{query}", 400, message)
            for verb in ("create", "delete", "empty", "pause", "unpause")
            for query, message in (("", "MISSING_ARG_TOPIC"), ("?x=%zz", "INVALID_REQUEST"))
        ),
        *((f"/topic/{verb}?topic={name}", 400, "INVALID_TOPIC") for verb in ("create", "empty") for name in ("", "$")),
        *(
            (f"/topic/{verb}?topic={name}", 404, "TOPIC_NOT_FOUND")
            for verb in ("delete", "pause", "unpause")
            for name in ("", "$", "nope")
        ),
        ("/topic/empty?topic=nope", 404, "TOPIC_NOT_FOUND"),
        *(
            (f"/channel/{verb}{query}", status, message)
            for verb in ("create", "delete", "empty", "pause", "unpause")
            for query, status, message in (
                ("?x=%zz", 400, "INVALID_REQUEST"),
                ("?channel=$", 400, "MISSING_ARG_TOPIC"),
                ("?topic=$", 400, "INVALID_ARG_TOPIC"),
                ("?topic=", 400, "INVALID_ARG_TOPIC"),
                ("?topic=nope", 400, "MISSING_ARG_CHANNEL"),
                ("?topic=nope&channel=$", 400, "INVALID_ARG_CHANNEL"),
                ("?topic=nope&channel=c", 404, "TOPIC_NOT_FOUND"),
            )
        ),
        *(
            (f"/channel/{verb}?topic=t&channel=nope", 404, "CHANNEL_NOT_FOUND")
            for verb in ("delete", "empty", "pause", "unpause")
        ),
    ],
)
async def test_refusals(node: RunningNode, line: str, status: int, message: str) -> None:
    node.broker.topic("t").channel("c")
    answer = await node.ask(f"POST {line}")
    assert (answer.status, json.loads(answer.body)) == (status, {"message": message})
    assert list(node.broker.topics) == ["t"]
    assert list(node.broker.topics["t"].channels) == ["c"]


async def test_create_and_delete(node: RunningNode) -> None:
    for _ in range(2):
        await ok(node, "/topic/create?topic=t")
        await ok(node, "/channel/create?topic=t&channel=c")
    assert list(node.broker.topics["t"].channels) == ["c"]
    await ok(node, "/channel/delete?topic=t&channel=c")
    assert not node.broker.topics["t"].channels
    await ok(node, "/topic/delete?topic=t")
    assert not node.broker.topics


async def test_changes_are_saved_before_the_answer(node: RunningNode) -> None:
    await ok(node, "/topic/create?topic=t")
    assert node.changes == [Change("topic_created", "t", "")]
    await ok(node, "/channel/create?topic=t&channel=c")
    assert node.changes[1:] == [Change("channel_created", "t", "c")]
    await ok(node, "/channel/pause?topic=t&channel=c")
    assert [change.kind for change in node.changes[2:]] == ["paused"]
    await ok(node, "/channel/delete?topic=t&channel=c")
    assert node.changes[3:] == [Change("channel_deleted", "t", "c")]


async def test_pause(node: RunningNode) -> None:
    topic = node.broker.topic("t")
    channel = topic.channel("c")
    await ok(node, "/topic/pause?topic=t")
    assert topic.paused
    await ok(node, "/topic/unpause?topic=t")
    assert not topic.paused
    await ok(node, "/channel/pause?topic=t&channel=c")
    assert channel.paused
    await ok(node, "/channel/unpause?topic=t&channel=c")
    assert not channel.paused


async def test_empty(node: RunningNode) -> None:
    """Of a topic only what waits on it; of a channel everything."""

    def depths() -> tuple[int, list[int]]:
        (topic,) = node.broker.stats().topics or ()
        return topic.depth, [channel.depth for channel in topic.channels]

    await node.ask("POST /pub?topic=t", b"x")
    assert depths() == (1, [])
    await ok(node, "/topic/empty?topic=t")
    assert depths() == (0, [])
    await ok(node, "/channel/create?topic=t&channel=c")
    await node.ask("POST /pub?topic=t", b"x")
    await ok(node, "/topic/empty?topic=t")
    assert depths() == (0, [1])
    await ok(node, "/channel/empty?topic=t&channel=c")
    assert depths() == (0, [0])


async def test_durability(node: RunningNode) -> None:
    await ok(node, "/topic/create?topic=t&durability=fsync")
    assert node.broker.topics["t"].durability == "fsync"
    await ok(node, "/topic/create?topic=t")
    assert node.broker.topics["t"].durability == "fsync"
    await ok(node, "/topic/create?topic=t&durability=memory")
    assert node.broker.topics["t"].durability == "memory"
    answer = await node.ask("POST /topic/create?topic=u&durability=more")
    assert (answer.status, json.loads(answer.body)) == (400, {"message": "INVALID_DURABILITY"})
    assert list(node.broker.topics) == ["t"]


async def test_limits() -> None:
    """--max-topics and --max-channels refuse what is new; what is there goes on."""
    async with running_node(Options(max_topics=1, max_channels=1)) as node:
        await ok(node, "/topic/create?topic=t")
        await ok(node, "/channel/create?topic=t&channel=c")
        for line, message in (
            ("/topic/create?topic=u", "TOO_MANY_TOPICS"),
            ("/pub?topic=u", "TOO_MANY_TOPICS"),
            ("/mpub?topic=u", "TOO_MANY_TOPICS"),
            ("/%70ub?topic=u", "TOO_MANY_TOPICS"),
            ("/channel/create?topic=t&channel=d", "TOO_MANY_CHANNELS"),
        ):
            answer = await node.ask(f"POST {line}", b"x")
            assert (answer.status, json.loads(answer.body)) == (503, {"message": message})
        await ok(node, "/topic/create?topic=t")
        await ok(node, "/channel/create?topic=t&channel=c")
        await ok(node, "/topic/delete?topic=t")
        await ok(node, "/topic/create?topic=u")
