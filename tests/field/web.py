"""HTTP of the tests, both sides."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

TIMEOUT_S = 30.0


def call(method: str, url: str, body: bytes | None = None, **query: str) -> tuple[int, bytes]:
    """Return status and body, whatever the status."""
    request = urllib.request.Request(f"{url}?{urlencode(query)}" if query else url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def get_json(url: str, **query: str) -> Any:
    """Return the decoded answer of a GET that has to work."""
    status, body = call("GET", url, **query)
    assert status == 200, (url, status, body)
    return json.loads(body)


def post(url: str, body: bytes = b"", **query: str) -> None:
    """Send a POST that has to work."""
    status, answer = call("POST", url, body, **query)
    assert status == 200, (url, status, answer)


def status_of(url: str) -> int:
    """Return the status of a GET."""
    return call("GET", url)[0]


class Quiet(BaseHTTPRequestHandler):
    """Writes no log."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[Quiet]) -> Iterator[str]:
    """Run a server; give its URL without a path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
