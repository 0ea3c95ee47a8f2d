"""The documented nginx: docs/deploy/ as it is, with the addresses of a test in the place of those written there."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.field.needs import need
from tests.field.program import Program, free_port, wait_until
from tests.field.web import status_of

DEPLOY: Final = Path(__file__).parents[2] / "docs" / "deploy"
_LOG: Final = "/var/log/nginx/nsq.log"
_LISTEN: Final = "127.0.0.1:8080"
_NODES: Final = ("127.0.0.1:4151", "127.0.0.1:4251")


def deploy(folder: Path, addresses: Mapping[str, str]) -> Path:
    """Copy docs/deploy/ to ``folder``, with addresses replaced; return the folder."""
    for path in DEPLOY.iterdir():
        if path.is_file():
            text = path.read_text()
            for old, new in addresses.items():
                assert path.name != "nginx.conf" or old in text, f"{old} is not in {path.name} any more"
                text = text.replace(old, new)
            (folder / path.name).write_text(text)
    return folder


class Nginx(Program):
    """nginx in the foreground; ``address`` is where publishers come to."""

    def __init__(self, folder: Path, nodes: Sequence[str], edits: Mapping[str, str] | None = None) -> None:
        folder.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        self.log = folder / "nsq.log"
        addresses = {_LISTEN: self.address, **dict(zip(_NODES, nodes, strict=True)), _LOG: str(self.log)}
        deploy(folder, addresses | dict(edits or {}))
        conf = folder / "nginx-alone.conf"
        command = [need("nginx"), "-e", "stderr", "-p", folder, "-c", conf]
        super().__init__(command, folder / "stderr")

    def __enter__(self) -> "Nginx":
        super().__enter__()
        wait_until(lambda: status_of(f"http://{self.address}/none") == 404, "nginx answers")
        return self

    def reload(self) -> None:
        """Let new workers take over."""
        self.process.send_signal(signal.SIGHUP)

    def unusual(self) -> list[str]:
        """Return what it has logged: publishes that the first node asked did not take."""
        return self.log.read_text().splitlines()
