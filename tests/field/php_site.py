"""A PHP site as they are run: nginx, php-fpm behind it, a page that publishes; and visitors."""

import http.client
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from tests.field.needs import need, need_php_fpm
from tests.field.nginx import DEPLOY
from tests.field.program import Program, free_port, wait_until
from tests.field.web import TIMEOUT_S

HERE: Final = Path(__file__).parent
VISITORS: Final = 20

_FPM: Final = """
[global]
error_log = /dev/stderr
daemonize = no
[www]
{owner}
listen = 127.0.0.1:{port}
pm = static
pm.max_children = 20
catch_workers_output = yes
"""
_SITE: Final = """
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    server {{
        listen {address} backlog=4096;
        location / {{
            fastcgi_pass 127.0.0.1:{port};
            fastcgi_param SCRIPT_FILENAME {page};
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param NSQ_SNIPPET {snippet};
            fastcgi_param NSQ_URL {url};
        }}
    }}
}}
"""


class PhpSite:
    """The site, from ``with`` on; its page publishes to ``url``."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir()
        port = free_port()
        self.address = f"127.0.0.1:{free_port()}"
        # a user who is not root may name no other, and root has to name one; -R lets it be root
        owner = "user = root\ngroup = root" if os.geteuid() == 0 else ""
        (folder / "fpm.conf").write_text(_FPM.format(owner=owner, port=port))
        files = {"page": HERE / "page.php", "snippet": DEPLOY / "publish.php"}
        (folder / "site.conf").write_text(_SITE.format(address=self.address, port=port, url=url, **files))
        self._fpm = Program([need_php_fpm(), "-F", "-R", "-y", folder / "fpm.conf"], folder / "fpm.stderr")
        command = [need("nginx"), "-e", "stderr", "-p", folder, "-c", folder / "site.conf", "-g", "daemon off;"]
        self._web = Program(command, folder / "web.stderr")
        self._running = ExitStack()

    def __enter__(self) -> "PhpSite":
        self._running.enter_context(self._fpm)
        self._running.enter_context(self._web)
        wait_until(lambda: self.visit("", "x") in (200, 500), "the site answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def complaints(self) -> str:
        """What php-fpm and its pages have complained about."""
        return self._fpm.stderr

    def visit(self, topic: str, body: str) -> int:
        """Let the page publish; its status is 200 if the message was accepted. A connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=3 * TIMEOUT_S)
        try:
            connection.request("GET", f"/?{urlencode({'topic': topic, 'body': body})}", headers={"Connection": "close"})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()


class Visitors:
    """So many at once, each visit a connection; until ``count`` visits each, or ``stop``."""

    def __init__(
        self, site: PhpSite, topic: str, *, visitors: int = VISITORS, count: int = 0, pause_s: float = 0
    ) -> None:
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self._site = site
        self._topic = topic
        self._count = count
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=(f"fpm-{i}",), daemon=True) for i in range(visitors)]

    def start(self) -> "Visitors":
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Let them end after the visit they are at."""
        self._stop.set()
        self.finish()

    def finish(self, deadline_s: float = 60.0) -> None:
        """Wait for their end."""
        until = time.monotonic() + deadline_s
        for thread in self._threads:
            thread.join(until - time.monotonic())
            assert not thread.is_alive(), "a visitor hangs"

    def _visit(self, name: str) -> None:
        number = 0
        while not self._stop.is_set() and (not self._count or number < self._count):
            body = f"{name}-{number}"
            status = self._site.visit(self._topic, body)
            (self.accepted if status == 200 else self.failed).append(body)
            number += 1
            self._stop.wait(self._pause_s)
