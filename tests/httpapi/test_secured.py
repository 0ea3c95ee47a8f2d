"""HTTPS, and plain HTTP where TLS is required (PROTOCOL 2.1)."""

import json
import ssl
from pathlib import Path

import anyio
import pytest

from pynsqd.net.layers import tls as tls_layer
from pynsqd.options import TlsRequired
from tests.support.certificates import Authority
from tests.support.nodes import Inside, eventually, inside
from tests.support.wire import HttpAnswer, WireClient, http


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def ask(node: Inside, authority: Authority, request: str, body: bytes = b"", **headers: str) -> HttpAnswer:
    if body:
        headers["Content-Length"] = str(len(body))
    return await http(node.https, request, body, headers=headers, tls=authority.context())


async def test_the_same_answers_as_http(tmp_path: Path, authority: Authority) -> None:
    """From the ingest, from the general path, and from one after the other on one connection."""
    async with inside(tmp_path, **authority.options()) as node:
        assert (await ask(node, authority, "POST /pub?topic=t", b"x")).body == b"OK"
        assert (await ask(node, authority, "POST /mpub?topic=t", b"y\n" * 100_000)).body == b"OK"
        assert (await ask(node, authority, "GET /ping")).body == b"OK"
        assert (await ask(node, authority, "GET /nope")).status == 404
        shown = json.loads((await ask(node, authority, "GET /stats?format=json")).body)
        assert shown["topics"][0]["depth"] == 100_001
        async with await WireClient.open(node.https, b"") as client:
            await client.start_tls(authority.context())
            pub = b"POST /pub?topic=t HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
            await client.send(pub * 3 + b"GET /info HTTP/1.1\r\nHost: h\r\n\r\n" + pub)
            seen = b""
            while seen.count(b"HTTP/1.1 200 OK") < 5 or not seen.endswith(b"OK"):
                seen += await client.some()
            assert b'"tcp_port"' in seen


async def test_chunked_bodies_and_large_answers(tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node:
        chunked = b"1\r\nx\r\n0\r\n\r\n"
        answer = await http(
            node.https, "POST /pub?topic=t", chunked, headers={"Transfer-Encoding": "chunked"}, tls=authority.context()
        )
        assert answer.body == b"OK"
        for number in range(300):
            await node.api.post(f"/topic/create?topic={'x' * 50}{number}")
        assert len((await ask(node, authority, "GET /stats?format=json")).body) > 60_000


async def test_plain_http_on_the_https_port(tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options()) as node:
        async with await WireClient.open(node.https, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") as client:
            said = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
            assert await client.drain() == said
        async with await WireClient.open(node.https, b"  V2NOP\n") as client:
            assert await client.drain() == b""


async def test_a_handshake_has_a_deadline(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_layer, "HANDSHAKE_S", 1.0)
    async with inside(tmp_path, **authority.options()) as node:
        async with await WireClient.open(node.https, b"") as silent, await WireClient.open(node.https, b"\x16") as slow:
            assert (await ask(node, authority, "GET /ping")).body == b"OK"
            assert await silent.drain() == b""
            assert await slow.drain() == b""


async def test_the_end_of_the_node_ends_handshakes(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_layer, "HANDSHAKE_S", 600)
    async with inside(tmp_path, **authority.options()) as node:
        client = await WireClient.open(node.https, b"\x16\x03")
        await eventually(node.api.ping)
    async with client:
        with anyio.fail_after(30):
            assert await client.drain() == b""


async def test_handshakes_count_as_connections_and_who_is_one_too_many_is_seen(
    tmp_path: Path, authority: Authority
) -> None:
    """Whether that one comes over HTTPS or HTTP."""
    async with inside(tmp_path, max_connections=2, **authority.options()) as node:
        async with await WireClient.open(node.https, b"\x16"), await WireClient.open(node.https, b"\x16"):
            async with await WireClient.open(node.https, b"") as client:
                await client.expect_closed()
            assert (await http(node.api.address, "GET /ping")).status == 503
            assert node.logged("too many connections, refused")
        await eventually(lambda: _pings(node))
        page = (await http(node.api.address, "GET /metrics")).body
        assert b'pynsqd_connections_refused_total{protocol="http"} ' in page
        assert b'pynsqd_connections_refused_total{protocol="http"} 0\n' not in page


async def _pings(node: Inside) -> bool:
    return (await node.api.ping()) == (200, b"OK")


async def test_plain_http_is_refused_where_tls_is_required(tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options(tls_required=TlsRequired.YES)) as node:
        said = b'{"message": "TLS_REQUIRED", "https_port": %d}' % node.https[1]
        for target in ("GET /ping", "GET /nope", "POST /pub?topic=t", "DELETE /config/log_level"):
            answer = await http(node.api.address, target)
            assert (answer.status, answer.body) == (403, said)
            assert answer.headers["x-nsq-content-type"] == "nsq; version=1.0"
            assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert (await ask(node, authority, "POST /pub?topic=t", b"x")).status == 200
        assert json.loads((await ask(node, authority, "GET /stats?format=json")).body)["topics"][0]["depth"] == 1


async def test_client_certificates_hold_for_https_too(tmp_path: Path, authority: Authority) -> None:
    given = authority.options(tls_client_auth_policy="require-verify", tls_root_ca_file=str(authority.root))
    async with inside(tmp_path, **given) as node:
        answer = await http(node.https, "GET /ping", tls=authority.context(client="known"))
        assert answer.body == b"OK"
        with pytest.raises((ssl.SSLError, anyio.BrokenResourceError)):
            await ask(node, authority, "GET /ping")


async def test_without_an_address_there_is_no_https(tmp_path: Path, authority: Authority) -> None:
    async with inside(tmp_path, **authority.options(https_address="")) as node:
        assert node.listeners.https is None
    async with inside(tmp_path) as node:
        assert node.listeners.https is None
