"""Asks auth servers over HTTP what clients may do (PROTOCOL 1.15).

Whatever an auth server answers, or does not answer, costs only the client that waits for it: no more than
``--http-client-request-timeout`` per server and a megabyte. Secrets are in no line of the log.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from importlib import import_module
from time import monotonic_ns
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlencode, urlsplit

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

from pynsqd.core.authority import Answered, Question
from pynsqd.options import Options
from pynsqd.wire.authorization import Grant, parse_grant
from pynsqd.wire.errors import StartupError
from pynsqd.wire.go_json import decode_json, encode_json, fields

if TYPE_CHECKING:
    import aiohttp
    from structlog.typing import FilteringBoundLogger

_MAX_ANSWER: Final = 1 << 20  # bytes
_ACCEPT: Final = "application/vnd.nsq; version=1.0"


class _Failure(Exception):
    """A server gave no valid answer; the text says why, without the secret that is in the URL."""


class AuthServers:
    """All auth servers of the node (core.authority). They are asked in order from a random one, until one answers."""

    def __init__(self, options: Options, log: FilteringBoundLogger) -> None:
        """Prepare; nothing is asked before ``run``. Raises StartupError for a bad --tls-root-ca-file."""
        self._addresses = options.auth_http_addresses
        self._post = options.auth_http_request_method == "post"
        self._connect_timeout_s = options.http_client_connect_timeout_ns / 1e9
        self._request_timeout_s = options.http_client_request_timeout_ns / 1e9
        self._log = log
        self._failing: set[str] = set()  # addresses; one line in the log tells when one begins to, one when it ends
        self._trust = _trust(options.tls_root_ca_file)
        self._tasks: TaskGroup | None = None
        self._http: aiohttp.ClientSession | None = None
        self._http_ready = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer questions until cancelled."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                # off the loop, which must not stand still for a quarter of a second
                await to_thread.run_sync(import_module, "aiohttp")
                self._http = self._client()
                self._http_ready.set()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            if self._http is not None:
                with anyio.CancelScope(shield=True):
                    await self._http.close()

    def _client(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415  loaded by run

        return aiohttp.ClientSession(
            # A connection per question, and as many as clients wait, as nsqd has it.
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._trust),
            cookie_jar=aiohttp.DummyCookieJar(),
            # What is not compressed needs no bound for what it becomes.
            headers={"Accept": _ACCEPT, "Accept-Encoding": "identity", "User-Agent": "pynsqd"},
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self._request_timeout_s, connect=self._connect_timeout_s),
        )

    def ask(self, question: Question, answered: Answered) -> Callable[[], None]:
        """Ask for a client (core.authority)."""
        assert self._tasks is not None  # noqa: S101 - it runs before anybody can connect
        scope = anyio.CancelScope()
        self._tasks.start_soon(self._ask, question, answered, scope)
        return scope.cancel

    async def _ask(self, question: Question, answered: Answered, scope: anyio.CancelScope) -> None:
        with scope:
            await self._http_ready.wait()
            grant = await self._ask_all(question)
            if not scope.cancel_called:
                self._answer(answered, grant)

    def _answer(self, answered: Answered, grant: Grant | None) -> None:
        try:
            answered(grant, monotonic_ns())
        except Exception:  # what is wrong with one client must not end the task of all
            self._log.exception("client failed after AUTH")

    async def _ask_all(self, question: Question) -> Grant | None:
        first = random.randrange(len(self._addresses))  # noqa: S311  to spread the load, not to surprise anybody
        for address in self._addresses[first:] + self._addresses[:first]:
            try:
                body = await self._fetch(_url(address), question)
                # off the loop: to read a megabyte of patterns takes a while
                grant = await to_thread.run_sync(parse_grant, body)
            except (_Failure, ValueError) as error:
                self._note_failure(address, str(error))
                continue
            self._note_success(address)
            return grant
        return None

    async def _fetch(self, url: str, question: Question) -> bytes:
        """Return the body of a 200; a server that sends us to HTTPS is asked there. Raises _Failure."""
        status, body = await self._request(url, question)
        port = _https_port(body) if status == 403 else 0
        if port:
            status, body = await self._request(_on_https(url, port), question)
        if status != 200:
            raise _Failure(f"HTTP status {status}")
        return body

    async def _request(self, url: str, question: Question) -> tuple[int, bytes]:
        import aiohttp  # noqa: PLC0415  loaded by run
        import yarl  # noqa: PLC0415

        assert self._http is not None  # noqa: S101 - it is ready
        said = {
            "common_name": question.common_name.encode(),
            "remote_ip": question.remote_ip.encode(),
            "secret": question.secret,
            "tls": b"true" if question.tls else b"false",
        }
        body = bytearray()
        try:
            if self._post:
                json = encode_json({name: [value.decode("utf-8", "replace")] for name, value in said.items()})
                request = self._http.post(
                    yarl.URL(url, encoded=True), data=json, headers={"Content-Type": "application/json"}
                )
            else:
                # appended blindly, as nsqd does it
                request = self._http.get(yarl.URL(f"{url}?{urlencode(said)}", encoded=True))
            async with request as response:
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _MAX_ANSWER:
                        raise _Failure(f"the answer is longer than {_MAX_ANSWER} bytes")
                return response.status, bytes(body)
        except aiohttp.ClientConnectorError as error:
            raise _Failure(str(error.os_error)) from None
        except _Failure:
            raise
        except Exception as error:  # whatever a server can provoke; the texts of some have the URL
            raise _Failure(type(error).__name__) from None

    def _note_failure(self, address: str, why: str) -> None:
        tell = self._log.debug if address in self._failing else self._log.warning
        tell("auth server gave no valid answer", auth_server=_shown(address), error=why)
        self._failing.add(address)

    def _note_success(self, address: str) -> None:
        if address in self._failing:
            self._failing.discard(address)
            self._log.info("auth server answers again", auth_server=_shown(address))


def _trust(root_ca_file: str) -> ssl.SSLContext | bool:
    if not root_ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=root_ca_file)
    except OSError as error:
        raise StartupError(f"--tls-root-ca-file {root_ca_file}: {error.strerror or error}") from None


def _url(address: str) -> str:
    return address if "://" in address else f"http://{address}/auth"


def _on_https(url: str, port: int) -> str:
    split = urlsplit(url)
    host = f"[{split.hostname}]" if ":" in (split.hostname or "") else split.hostname
    return SplitResult("https", f"{host}:{port}", split.path, split.query, "").geturl()


def _https_port(body: bytes) -> int:
    try:
        port = fields(decode_json(body), {"https_port": int}).get("https_port", 0)
    except ValueError:
        return 0
    return port if isinstance(port, int) and 0 < port < 65536 else 0


def _shown(address: str) -> str:
    """Leave out a password that a URL may have."""
    return address if "@" not in address else address[: address.find("://") + 3] + address.rpartition("@")[2]
