"""API keys on the ports of a node and a lookupd, the fast path of publishing included."""

import signal
from hashlib import sha256
from pathlib import Path

import pytest
from anyio import to_thread

from tests.support.daemons import Daemon
from tests.support.nodes import Inside, eventually, inside
from tests.support.wire import Address, HttpAnswer, WireClient, http

ADMIN, SHOP = "key-of-admin", "key-of-shop"


def line(name: str, roles: str, key: str) -> str:
    return f"{name} {roles} {sha256(key.encode()).hexdigest()}\n"


def key_file(folder: Path, *more: str) -> Path:
    path = folder / "api-keys"
    path.write_text(line("root", "admin", ADMIN) + line("shop", "publish", SHOP) + "".join(more))
    path.chmod(0o600)
    return path


async def ask(address: Address, request: str, key: str = "", body: bytes = b"", bearer: bool = False) -> HttpAnswer:
    headers = {"Content-Length": str(len(body))} if not request.startswith("GET") else {}
    if key:
        headers |= {"Authorization": f"Bearer {key}"} if bearer else {"X-API-Key": key}
    return await http(address, request, body, headers=headers)


async def depth(node: Inside) -> int:
    answer = await ask(node.api.address, "GET /stats?format=json&topic=t", ADMIN)
    assert answer.status == 200
    return int(answer.body.partition(b'"depth":')[2].partition(b",")[0])


@pytest.mark.parametrize("bearer", [True, False])
async def test_node(bearer: bool, tmp_path: Path) -> None:
    async with inside(tmp_path, http_api_key_file=str(key_file(tmp_path))) as node:
        address = node.api.address
        assert (await ask(address, "GET /ping")).status == 200
        for request, role in (("POST /pub?topic=t", "shop"), ("POST /mpub?topic=t", "shop"), ("GET /stats", "root")):
            refused = await ask(address, request, body=b"x" if role == "shop" else b"")
            assert (refused.status, refused.body) == (401, b'{"message":"UNAUTHORIZED"}')
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.headers["content-type"] == "application/json; charset=utf-8"
        assert (await ask(address, "POST /pub?topic=t", SHOP, b"x", bearer)).status == 200
        assert (await ask(address, "POST /mpub?topic=t", ADMIN, b"x\ny", bearer)).status == 200
        assert await depth(node) == 3
        forbidden = await ask(address, "POST /topic/delete?topic=t", SHOP, bearer=bearer)
        assert (forbidden.status, forbidden.body) == (403, b'{"message":"FORBIDDEN"}')
        assert (await ask(address, "GET /debug/pprof/heap", SHOP)).status == 403
        assert (await ask(address, "PUT /config/log_level", SHOP, b"debug")).status == 403
        assert (await ask(address, "PUT /config/log_level", ADMIN, b"debug", bearer)).status == 200
        assert (await ask(address, "POST /topic/delete?topic=t", ADMIN, bearer=bearer)).status == 200
        # other spellings of a path do not help
        for path in ("//topic/delete", "/topic/../topic/delete", "/%74opic/delete", "/TOPIC/delete", "/topic/delete/"):
            assert (await ask(address, f"POST {path}?topic=t", SHOP)).status == 403
        # and what is open only looks so
        for request in ("GET /ping%3F/../stats", "POST /pub%3F/../topic/delete", "PUT /livez%3F/../config/log_level"):
            assert (await ask(address, request)).status == 401
        assert any("admin request" in str(one) and "root" in str(one) for one in node.logs.lines)
        assert ADMIN not in repr(node.logs.lines)
        assert SHOP not in repr(node.logs.lines)


async def test_fast_path_knows_heads_by_their_key(tmp_path: Path) -> None:
    """The same request again and again on one connection, with the right key, without, and with another."""
    good = f"POST /pub?topic=t HTTP/1.1\r\nHost: h\r\nX-API-Key: {SHOP}\r\nContent-Length: 1\r\n\r\nx".encode()
    async with inside(tmp_path, http_api_key_file=str(key_file(tmp_path))) as node:
        async with await WireClient.open(node.api.address, b"") as client:
            await client.send(good * 100 + good.replace(SHOP.encode(), b"wrong"))
            answers = await client.drain()
        assert answers.count(b"HTTP/1.1 200 OK") == 100
        assert answers.count(b"HTTP/1.1 401 Unauthorized") == 1
        both = good.replace(b"Host: h", b"Host: h\r\nX-API-Key: other")
        chunked = good.replace(b"Content-Length: 1\r\n\r\nx", b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        for request, status in ((both, b"401"), (chunked, b"200"), (chunked.replace(SHOP.encode(), b"no"), b"401")):
            async with await WireClient.open(node.api.address, b"") as client:
                await client.send(request.replace(b"Host: h", b"Host: h\r\nConnection: close"))
                assert (await client.drain()).startswith(b"HTTP/1.1 " + status)
        assert await depth(node) == 101


async def test_publishing_stays_open_if_the_file_says_so(tmp_path: Path) -> None:
    async with inside(tmp_path, http_api_key_file=str(key_file(tmp_path, "anonymous publish -\n"))) as node:
        for _ in range(3):
            assert (await ask(node.api.address, "POST /pub?topic=t", body=b"x")).status == 200
        assert (await ask(node.api.address, "POST /pub?topic=t", "wrong", b"x")).status == 401
        assert (await ask(node.api.address, "GET /stats")).status == 401
        assert (await ask(node.api.address, "POST /topic/delete?topic=t")).status == 401
        assert await depth(node) == 3


async def test_without_a_file_nothing_changes(tmp_path: Path) -> None:
    async with inside(tmp_path) as node:
        for request in ("POST /pub?topic=t", "POST /topic/delete?topic=t"):
            assert (await ask(node.api.address, request, "any", b"x")).status == 200


async def test_hangup_reads_the_keys_again(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    with Daemon("nsqd", f"--http-api-key-file={path}", data_path=tmp_path) as node:
        assert (await ask(node.http, "POST /pub?topic=t", SHOP, b"x")).status == 200
        path.write_text(line("root", "admin", ADMIN))
        node.signal(signal.SIGHUP)
        await to_thread.run_sync(node.await_log, "API keys reloaded")
        assert (await ask(node.http, "POST /pub?topic=t", SHOP, b"x")).status == 401
        path.chmod(0o644)
        node.signal(signal.SIGHUP)
        await to_thread.run_sync(node.await_log, "API keys not reloaded")
        assert (await ask(node.http, "POST /pub?topic=t", ADMIN, b"x")).status == 200


@pytest.mark.parametrize("server", ["nsqd", "nsqlookupd"])
def test_bad_file_ends_the_start_in_one_line(server: str, tmp_path: Path) -> None:
    path = key_file(tmp_path, "nonsense\n")
    daemon = Daemon(server, f"--http-api-key-file={path}", data_path=tmp_path)
    with pytest.raises(AssertionError, match="did not listen"):
        daemon.start()
    assert daemon.stderr.count("\n") == 1
    assert "line 3: not a name, roles and the SHA-256 of a key" in daemon.stderr
    assert daemon.wait() == 1


async def test_lookupd(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    with Daemon("nsqlookupd", f"--http-api-key-file={path}", data_path=tmp_path) as lookupd:
        assert (await ask(lookupd.http, "POST /topic/create?topic=t")).status == 401
        assert (await ask(lookupd.http, "POST /topic/create?topic=t", SHOP)).status == 403
        assert (await ask(lookupd.http, "POST /topic/create?topic=t", ADMIN)).status == 200
        assert (await ask(lookupd.http, "GET /topics")).body == b'{"topics":["t"]}'
        assert (await ask(lookupd.http, "GET /debug")).status == 401
        assert ADMIN not in lookupd.stderr
        await eventually(lambda: "key=root" in lookupd.stderr)
        lookupd.signal(signal.SIGHUP)
        await to_thread.run_sync(lookupd.await_log, "API keys reloaded")
