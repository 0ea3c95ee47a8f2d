"""The conformance scenario of real clients that have to authenticate, with an auth server made with aiohttp.

What they are allowed is just what the scenario needs, and holds for a second, so the node asks again and again.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web

from tests.interop.runs import CHANNEL, Run, clients, play
from tests.interop.test_real_clients import AFTER, BEFORE_RESTART, STOPPING
from tests.support.daemons import Daemon

SECRET = "s&cret \u00e9"
# ansq 0.3.0 takes no secret: who uses it calls auth() on each connection.
CLIENTS = {name: client for name, client in clients().items() if name != "ansq"}


class AuthServer:
    """Knows one secret; each topic is its client's own."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> "AuthServer":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        self._over = asyncio.Event()
        app = web.Application()
        app.router.add_get("/auth", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.address = f"{host}:{port}"
        self._ready.set()
        await self._over.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        if request.query["secret"] != SECRET:
            return web.json_response({"message": "who?"}, status=403)
        rule: dict[str, Any] = {"channels": [f"^{CHANNEL}$", "^$"], "permissions": ["subscribe", "publish"]}
        rules = [{"topic": f"^auth-{name}$"} | rule for name in CLIENTS]
        return web.json_response({"ttl": 1, "identity": "tests", "identity_url": "", "authorizations": rules})


@pytest.fixture(scope="module")
def auth_server() -> Iterator[AuthServer]:
    with AuthServer() as server:
        yield server


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, auth_server: AuthServer) -> Iterator[dict[str, Future[Run]]]:
    """Let every client that is there play; they wait most of the time."""
    flag = f"--auth-http-address={auth_server.address}"
    with (
        Daemon("nsqlookupd", data_path=tmp_path_factory.mktemp("lookupd")) as lookupd,
        ThreadPoolExecutor(len(CLIENTS)) as pool,
    ):
        yield {
            name: pool.submit(
                play, client, f"auth-{name}", lookupd, tmp_path_factory.mktemp(name), flag, env={"AUTH_SECRET": SECRET}
            )
            for name, client in CLIENTS.items()
            if not client.missing
        }


@pytest.mark.parametrize("name", CLIENTS)
def test_client_plays_to_its_end(name: str, runs: dict[str, Future[Run]], auth_server: AuthServer) -> None:
    if missing := CLIENTS[name].missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name}: {missing}")
    run = runs[name].result()
    finished = {event.body for event in run.events if event.what == "finished"}
    missed = {*BEFORE_RESTART, *AFTER, *STOPPING.get(name, [])} - finished
    assert (run.exit_code, missed) == (0, set()), run.stderr
    (client,) = run.at_restart["clients"]
    assert (client["authed"], client["auth_identity"]) == (True, "tests")
    assert {"secret": SECRET, "tls": "false", "remote_ip": "127.0.0.1", "common_name": ""} in auth_server.asked
