"""What a node owes before a restart it owes after it: exactly after SIGTERM, and no less after a kill (P2, P3)."""

from pathlib import Path
from time import monotonic

import pytest

from pynsqd.storage.checkpoint import Checkpoint
from tests.support.daemons import Daemon
from tests.support.nodes import OK, V2, Api, eventually, owed_in_checkpoint
from tests.support.wire import Message, command, mpub

_DELAY_MS = 6000  # longer than a restart takes, also on a machine that is busy with other things


def _bodies(messages: list[Message]) -> list[bytes]:
    return [message.body for message in messages]


async def _end(daemon: Daemon, how: str, checkpointed: int) -> None:
    """Stop the node, or kill it once the checkpoint says that so many messages are owed by name."""
    if how == "stop":
        assert daemon.stop() == 0, daemon.stderr
    else:
        await eventually(lambda: owed_in_checkpoint(daemon.data_path) == checkpointed)
        daemon.kill()
    daemon.start()


@pytest.mark.parametrize(
    ("durability", "how"), [("log", "stop"), ("memory", "stop"), ("fsync", "stop"), ("log", "kill")]
)
async def test_exact_state(durability: str, how: str, tmp_path: Path) -> None:
    """Finished stays finished; in flight and requeued come with attempts + 1; due times stand; order stands."""
    with Daemon("nsqd", f"--durability={durability}", data_path=tmp_path) as node:
        api = Api(node.http)
        async with await V2.consumer(node.tcp, 0) as client:
            assert await client.ask(mpub(b"t", [b"%d" % number for number in range(12)])) == OK
            began = monotonic()
            assert await client.ask(command(b"DPUB t %d" % _DELAY_MS, b"dpub")) == OK
            assert await client.ask(command(b"DPUB t 600000", b"far")) == OK
            assert (await api.post(f"/pub?topic=t&defer={_DELAY_MS}", b"http")).status == 200
            await client.send(b"RDY 5\n")
            zero, one, two, three, _ = await client.messages(5)
            await client.send(b"RDY 0\n")
            await client.finish([zero, one])
            await client.send(b"REQ %s 0\nREQ %s %d\n" % (two.id, three.id, _DELAY_MS))
            await eventually(lambda: _settled(api, (8, 1, 4)))
            if how == "kill":
                await _end(node, how, 2)
        if how == "stop":  # the consumer is gone now: its message in flight waits
            await _end(node, how, 0)
        api = Api(node.http)
        assert await api.owes() == (9, 0, 4)
        assert (await api.topic())["depth"] == 0
        async with await V2.consumer(node.tcp, 100) as client:
            now = await client.messages(9)
            assert {message.body: message.attempts for message in now if message.body in (b"2", b"4")} == {
                b"2": 2,
                b"4": 2,
            }
            fresh = [message for message in now if message.body not in (b"2", b"4")]
            assert _bodies(fresh) == [b"5", b"6", b"7", b"8", b"9", b"10", b"11"]
            assert {message.attempts for message in fresh} == {1}
            later = await client.messages(3)
            assert monotonic() - began >= _DELAY_MS / 1000
            assert sorted((message.body, message.attempts) for message in later) == [
                (b"3", 2),
                (b"dpub", 1),
                (b"http", 1),
            ]
            await client.finish(now + later)
            await eventually(lambda: _settled(api, (0, 0, 1)))
        assert node.stop() == 0
        node.start()
        api = Api(node.http)
        assert await api.owes() == (0, 0, 1)
        assert (await api.channel())["message_count"] == 0


async def _settled(api: Api, owes: tuple[int, int, int]) -> bool:
    return await api.owes() == owes


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_what_waits_on_topics_and_pauses(how: str, tmp_path: Path) -> None:
    """A topic without channels, a paused topic and a paused channel keep their messages, deferred ones too."""
    with Daemon("nsqd", data_path=tmp_path) as node:
        api = Api(node.http)
        await api.do("/topic/create?topic=bare", "/topic/create?topic=paused", "/channel/create?topic=paused&channel=c")
        await api.do("/topic/pause?topic=paused", "/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        await api.do("/channel/pause?topic=t&channel=c")
        for topic in ("bare", "paused", "t"):
            for number in range(3):
                assert (await api.post(f"/pub?topic={topic}", b"%d" % number)).status == 200
            assert (await api.post(f"/pub?topic={topic}&defer=1000", b"soon")).status == 200
            assert (await api.post(f"/pub?topic={topic}&defer=900000", b"far")).status == 200
        if how == "stop":
            assert node.stop() == 0
        else:
            node.kill()
        node.start()
        api = Api(node.http)
        for name in ("bare", "paused"):
            assert (await api.topic(name))["depth"] == 5, name
        assert (await api.topic("paused"))["paused"]
        assert (await api.channel())["paused"]
        await api.do("/topic/unpause?topic=paused", "/channel/unpause?topic=t&channel=c")
        for name in ("bare", "paused", "t"):
            async with await V2.consumer(node.tcp, 10, name) as client:
                got = _bodies(await client.messages(4))
                assert [body for body in got if body != b"soon"] == [b"0", b"1", b"2"]
                assert b"soon" in got
                assert (await api.owes("c", name))[1:] == (4, 1)
                assert (await api.topic(name))["depth"] == 0


async def test_attempts_never_go_down(tmp_path: Path) -> None:
    """Delivered and killed again and again: every delivery that a checkpoint saw counts."""
    with Daemon("nsqd", "--checkpoint-interval=10ms", data_path=tmp_path) as node:
        assert (await Api(node.http).post("/pub?topic=t", b"x")).status == 200
        for attempt in (1, 2, 3, 4):
            async with await V2.consumer(node.tcp, 1) as client:
                assert (await client.message()).attempts == attempt
                if attempt == 2:
                    assert node.stop() == 0
                else:
                    await eventually(lambda: _next_attempt(tmp_path) == attempt + 1)  # noqa: B023
                    node.kill()
            node.start()


def _next_attempt(folder: Path) -> int:
    checkpoint = Checkpoint(folder)
    checkpoint.close()
    topics = checkpoint.states or {}
    channels = topics["t"]["channels"] if "t" in topics else {}
    owed = channels["c"]["owed"] if "c" in channels else []
    return int(owed[0][2]) if owed else 0


async def test_ids_of_lives_that_soon_end_are_different(tmp_path: Path) -> None:
    """Each life begins with ids beyond the last checkpoint, so it has to begin with one of its own."""
    with Daemon("nsqd", "--checkpoint-interval=1h", data_path=tmp_path) as node:
        await Api(node.http).do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        for end in (node.stop, node.kill, node.kill):
            assert (await Api(node.http).post("/pub?topic=t", b"x")).status == 200
            end()
            node.start()
        async with await V2.consumer(node.tcp, 10) as consumer:
            assert len({message.id for message in await consumer.messages(3)}) == 3


async def test_deferred_messages_come_due_on_an_idle_node(tmp_path: Path) -> None:
    """After a restart nobody has to connect for the clock to run."""
    with Daemon("nsqd", data_path=tmp_path) as node:
        await Api(node.http).do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        assert (await Api(node.http).post("/pub?topic=t&defer=1000", b"soon")).status == 200
        assert node.stop() == 0
        node.start()
        api = Api(node.http)
        await eventually(lambda: _settled(api, (1, 0, 0)))


async def test_a_deleted_channel_does_not_come_back(tmp_path: Path) -> None:
    """Deleted and made anew, then killed before the next checkpoint: what was dropped stays dropped."""
    with Daemon("nsqd", "--checkpoint-interval=1s", data_path=tmp_path) as node:
        api = Api(node.http)
        await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        await api.post("/pub?topic=t", b"dropped")
        await eventually(lambda: owed_in_checkpoint(tmp_path) == 0)
        await api.do("/channel/delete?topic=t&channel=c", "/channel/create?topic=t&channel=c")
        node.kill()
        node.start()
        assert await Api(node.http).owes() == (0, 0, 0)


async def test_a_deleted_topic_does_not_come_back(tmp_path: Path) -> None:
    """Deleted and made anew, published to and killed: the new messages are there, and only those."""
    with Daemon("nsqd", "--checkpoint-interval=1s", data_path=tmp_path) as node:
        api = Api(node.http)
        await api.do("/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        await api.post("/pub?topic=t", b"dropped" * 1000)
        await eventually(lambda: owed_in_checkpoint(tmp_path) == 0)
        await api.do("/topic/delete?topic=t", "/topic/create?topic=t", "/channel/create?topic=t&channel=c")
        assert (await api.post("/pub?topic=t", b"new")).status == 200
        node.kill()
        node.start()
        assert await Api(node.http).owes() == (1, 0, 0)
        async with await V2.consumer(node.tcp, 10) as client:
            assert (await client.message()).body == b"new"


@pytest.mark.parametrize("what", ["topic", "channel"])
async def test_what_was_emptied_stays_empty(what: str, tmp_path: Path) -> None:
    with Daemon("nsqd", "--checkpoint-interval=1s", data_path=tmp_path) as node:
        api = Api(node.http)
        await api.do("/topic/create?topic=t")
        if what == "channel":
            await api.do("/channel/create?topic=t&channel=c")
        for defer in ("", "&defer=60000", "&defer=600000"):
            assert (await api.post(f"/pub?topic=t{defer}", b"x")).status == 200
        await api.do(f"/{what}/empty?topic=t&channel=c")
        node.kill()
        node.start()
        api = Api(node.http)
        assert (await api.topic())["depth"] == 0
        await api.do("/channel/create?topic=t&channel=c")
        assert await api.owes() == (0, 0, 0)


async def test_what_was_made_is_there_after_a_kill_that_follows_the_answer(tmp_path: Path) -> None:
    """By every command that makes topics and channels; and what was deleted or paused is that."""
    with Daemon("nsqd", data_path=tmp_path) as node:
        for life in ("one", "two", "three"):
            api = Api(node.http)
            async with await V2.open(node.tcp) as client, await V2.open(node.tcp) as subscriber:
                await api.do(f"/topic/create?topic={life}-created", f"/channel/create?topic={life}-created&channel=c")
                await api.do(f"/channel/create?topic={life}-created&channel=gone", f"/topic/create?topic={life}-gone")
                await api.do(f"/channel/delete?topic={life}-created&channel=gone", f"/topic/delete?topic={life}-gone")
                await api.do(f"/channel/pause?topic={life}-created&channel=c", f"/topic/pause?topic={life}-created")
                assert (await api.post(f"/pub?topic={life}-post", b"x")).status == 200
                assert await client.ask(command(f"PUB {life}-pub".encode(), b"x")) == OK
                assert await client.ask(command(f"DPUB {life}-dpub 600000".encode(), b"x")) == OK
                assert await client.ask(mpub(f"{life}-mpub".encode(), [b"x"])) == OK
                assert await subscriber.ask(f"SUB {life}-sub c\n".encode()) == OK
                node.kill()
            node.start()
        shown = (await Api(node.http).stats())["topics"]
        assert {
            topic["topic_name"]: (topic["paused"], {one["channel_name"]: one["paused"] for one in topic["channels"]})
            for topic in shown
        } == {
            f"{life}-{how}": (how == "created", {"created": {"c": True}, "sub": {"c": False}}.get(how, {}))
            for life in ("one", "two", "three")
            for how in ("created", "post", "pub", "dpub", "mpub", "sub")
        }
