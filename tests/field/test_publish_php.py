"""docs/deploy/publish.php: what it sends, when it tries again, when it throws."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.field.cluster import at, channel_of
from tests.field.needs import need
from tests.field.nginx import DEPLOY
from tests.field.program import free_port
from tests.field.web import Quiet, post, serving
from tests.support.daemons import Daemon
from tests.support.nodes import V2


def publish(url: str, body: bytes, topic: str = "t", defer_ms: int = 0) -> str:
    """Call nsq_publish() once; return "published" or the text of its exception."""
    command = [
        need("php"),
        Path(__file__).with_name("publish_once.php"),
        DEPLOY / "publish.php",
        url,
        topic,
        str(defer_ms),
    ]
    done = subprocess.run(command, input=body, capture_output=True, timeout=30, check=True)
    assert done.stderr == b""
    return done.stdout.decode().strip()


@contextmanager
def answering(statuses: Sequence[int]) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Run a server that gives these answers, then none more; a status of 0 is a connection closed without one."""
    asked: list[tuple[str, bytes]] = []

    class Node(Quiet):
        def do_POST(self) -> None:
            assert "Expect" not in self.headers
            asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            if status := statuses[len(asked) - 1]:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"because")

    with serving(Node) as url:
        yield url, asked


@pytest.mark.parametrize("first", [0, 500, 502, 503, 504])
def test_tries_once_more(first: int) -> None:
    with answering([first, 200]) as (url, asked):
        assert publish(url, b"body") == "published"
    assert asked == [("/pub?topic=t", b"body")] * 2


def test_throws_after_the_second_failure() -> None:
    with answering([503, 503]) as (url, asked):
        assert publish(url, b"body") == "NSQ: publish to t failed: 503 because"
    assert len(asked) == 2


@pytest.mark.parametrize("refusal", [400, 404, 413])
def test_what_is_refused_is_not_tried_again(refusal: int) -> None:
    with answering([refusal]) as (url, asked):
        assert publish(url, b"body") == f"NSQ: publish to t failed: {refusal} because"
    assert len(asked) == 1


def test_a_long_body_is_sent_without_asking_first() -> None:
    """curl would ask for a "100 Continue", which costs a second where it is not given."""
    with answering([200]) as (url, asked):
        assert publish(url, b"x" * 2_000_000) == "published"
    assert len(asked[0][1]) == 2_000_000


def test_says_that_nobody_listens() -> None:
    message = publish(f"http://127.0.0.1:{free_port()}", b"body")
    assert message.startswith("NSQ: publish to t failed: Failed to connect to 127.0.0.1")


async def test_any_bytes_arrive_and_a_delay_is_kept(tmp_path: Path) -> None:
    bodies = [bytes(range(256)), b"@/etc/hostname", b"a=1&b=%20", b"\n", b"x" * 1024 * 1024]
    with Daemon("nsqd", data_path=tmp_path) as node:
        url = f"http://{at(node.http)}"
        post(f"{url}/topic/create", topic="t")
        post(f"{url}/channel/create", topic="t", channel="c")
        for body in bodies:
            assert publish(url, body) == "published"
        async with await V2.consumer(node.tcp, len(bodies)) as consumer:
            assert [message.body for message in await consumer.messages(len(bodies))] == bodies
        assert publish(url, b"later", defer_ms=60_000) == "published"
        assert channel_of(at(node.http), "t", "c")["deferred_count"] == 1
        assert publish(url, b"") == 'NSQ: publish to t failed: 400 {"message":"MSG_EMPTY"}'
        assert publish(url, b"x", topic="no name") == 'NSQ: publish to no name failed: 400 {"message":"INVALID_TOPIC"}'
        assert publish(url, b"x" * (1024 * 1024 + 1)).startswith("NSQ: publish to t failed: 413")
