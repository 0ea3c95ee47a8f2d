"""Whatever is sent, the ingest and the general path by itself give the very same answers and store the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pynsqd.httpapi.app import general_path
from pynsqd.options import Options
from tests.httpapi.client import HttpClient
from tests.httpapi.running import RunningNode, let_read, running_node, until

OPTIONS = Options(max_msg_size=20, max_body_size=60)

targets = st.builds(
    "{}{}".format,
    st.sampled_from(["/pub", "/pub", "/mpub", "/mpub", "/ping", "/%70ub", "/PUB", "/pub/", "//pub", "/nope"]),
    st.sampled_from(
        [
            "?topic=t",
            "?topic=t",
            "?topic=t%23ephemeral",
            "?topic=t#ephemeral",
            "?topic=t&defer=0",
            "?topic=t&defer=5",
            "?topic=u&defer=-1",
            "?topic=t&binary=true",
            "?topic=t&binary=0",
            "?topic=$",
            "?topic=%zz",
            "?a;b&topic=t",
            "?topic=",
            "?",
            "",
        ]
    ),
)
bodies = st.one_of(
    st.sampled_from(
        [b"", b"x", 20 * b"x", 21 * b"x", 60 * b"x", 61 * b"x", b"a\n\nb\n", 21 * b"x" + b"\n" + 50 * b"y"]
    ),
    st.sampled_from([b"\0\0\0\1\0\0\0\1x", b"\0\0\0\2\0\0\0\1x", b"\0\0\0\1\0\0\0\1xtail", b"\0\0"]),
    st.binary(max_size=70),
)
extras = st.lists(
    st.sampled_from(
        [
            "Connection: close",
            "Connection: keep-alive",
            "Accept: */*",
            "Content-Encoding: gzip",
            "Content-Type: application/x-www-form-urlencoded",
        ]
    ),
    max_size=2,
    unique_by=lambda header: header.partition(":")[0],
)


@st.composite
def requests(draw: st.DrawFn, *, wrong: bool = False) -> bytes:
    """Draw a request; a ``wrong`` one may be something that HTTP does not allow."""
    method = draw(st.sampled_from(["POST", "POST", "POST", "GET", "OPTIONS", "PUT", *(["post"] if wrong else [])]))
    version = draw(st.sampled_from(["1.1", "1.1", "1.0", *(["1.2", "x"] if wrong else [])]))
    odd_targets = st.sampled_from(["*", "t", "/pub?topic=\u00e9", "http://[/pub"])
    target = draw(st.one_of(targets, odd_targets) if wrong else targets)
    body = draw(bodies)
    headers = draw(extras)
    if not wrong or draw(st.booleans()):
        headers.append("Host: x")
    if wrong:
        headers += draw(
            st.sampled_from(
                [
                    [],
                    ["Upgrade: h2c", "Connection: Upgrade"],
                    ["X-Bad\x00: 1"],
                    ["Host: y"],
                    ["No colon"],
                    [" Folded: 1"],
                ]
            )
        )
    framings = ["length", "length", "chunked", "none", *(["short", "twice", "word", "both"] if wrong else [])]
    framing = draw(st.sampled_from(framings))
    sent = body
    if framing in ("chunked", "both"):
        headers.append("Transfer-Encoding: chunked")
        sent = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    elif framing == "none":
        sent = b""
    if framing not in ("chunked", "none"):
        length = {"short": str(len(body) + 3), "word": "x"}.get(framing, str(len(body)))
        headers += [f"Content-Length: {length}"] * (2 if framing == "twice" else 1)
    return "\r\n".join((f"{method} {target} HTTP/{version}", *headers, "", "")).encode() + sent


def up_to_close(raws: list[bytes]) -> list[bytes]:
    for number, raw in enumerate(raws, 1):
        if b"Connection: close" in raw or (b"HTTP/1.0" in raw and b"keep-alive" not in raw):
            return raws[:number]
    return raws


# aiohttp forgets what it has read before something that is not HTTP, in the same read; the ingest answers it. So such a
# request is sent alone, and nothing after the last.
conversations = st.one_of(
    st.lists(requests(), min_size=1, max_size=3).map(up_to_close),
    st.lists(requests(wrong=True), min_size=1, max_size=1),
)


@asynccontextmanager
async def general_only() -> AsyncIterator[tuple[RunningNode, int]]:
    """Have a node whose port is served by the general path alone."""
    async with running_node(OPTIONS, general=False) as node:
        server = await general_path(node.node)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        try:
            yield node, listening.sockets[0].getsockname()[1]
        finally:
            listening.close()
            server.close()
            await until(lambda: not server.connections)


async def exchange(port: int, *pieces: bytes) -> tuple[list[object], bool]:
    """Return the answers, and whether the connection was reset, as happens to who sends on after a 400."""
    async with await HttpClient.open(port) as client:
        try:
            for piece in pieces:
                await client.send(piece)
                await let_read()
            await client.shutdown_write()
        except (anyio.BrokenResourceError, OSError):
            return [], True
        return [answer.same() for answer in await client.answers()], client.reset


def stored(node: RunningNode) -> list[object]:
    return [
        (topic.topic_name, topic.message_count, topic.message_bytes, topic.depth)
        for topic in node.broker.stats().topics or ()
    ]


POST = b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"


@given(conversations, st.lists(st.integers(1, 300), max_size=2))
@example([POST, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n", POST], [])
@example([POST.replace(b"1.1", b"1.0")], [10])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_ingest_and_the_general_path_answer_the_same(raws: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(raws)
    edges = [0, *sorted({cut for cut in cuts if cut < len(raw)}), len(raw)]
    pieces = [raw[start:stop] for start, stop in pairwise(edges)]

    async def compare() -> None:
        async with running_node(OPTIONS) as fast, general_only() as (slow, port):
            expected, _ = await exchange(port, raw)
            answers, reset = await exchange(fast.port, *pieces)
            assert answers == expected[: len(answers)] if reset else answers == expected
            assert stored(fast) == stored(slow)

    anyio.run(compare)
