"""Writes into fixtures what the reference answers: ``python -m tests.support.record proto_fixtures/http/x.json ...``.

``NSQD_BINARY`` and ``NSQLOOKUPD_BINARY`` name the reference. A new case is a file whose events lack the answers
(``{"op": "recv", "conn": "c"}``, ``{"op": "http", "request": "GET /ping"}``); they are filled in. Answers that are
there and still right, masks considered, stay as they are, so recording a whole folder again changes nothing.
"""

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

from tests.support.daemons import Daemon, is_reference
from tests.support.fixtures import Data, Event, Fixture, load
from tests.support.replay import Replay


class Recording(Replay):
    """A replay that believes the daemon and not the fixture."""

    settle_s = 0.1

    def settle(self, event: Event, seen: dict[str, Any]) -> None:
        """Put what was seen into the event where it says otherwise."""
        if self.difference(event, seen):
            for key in seen.keys() & {"data", "response"}:
                seen[key] = self._pieces(self.own_names(seen[key]))
            event.update(seen)

    def _pieces(self, text: str) -> Data:
        """Write long runs of one character as their length, and message ids as what they are called."""
        names = {value.decode("latin-1"): ref for ref, value in self._bound.items() if not ref.endswith(" time")}
        pattern = re.compile("|".join([r"(.)\1{39,}", *map(re.escape, names)]), re.DOTALL)
        pieces: list[Any] = []
        at = 0
        for found in pattern.finditer(text):
            pieces += [text[at : found.start()]] if found.start() > at else []
            pieces.append({"repeat": found[1], "times": len(found[0])} if found[1] else {"id": names[found[0]]})
            at = found.end()
        return [*pieces, *([text[at:]] if at < len(text) else [])] if pieces else text


async def record(fixture: Fixture, folder: Path) -> None:
    """Run the events of one fixture against the reference and fill in its answers."""
    daemon = Daemon(fixture.server, data_path=folder)
    try:
        await Recording(fixture, "nsqd", daemon, anyio.CapacityLimiter(1)).run()
    finally:
        daemon.kill()


def main(names: list[str]) -> None:
    """Record each file and write it again."""
    assert is_reference(), "NSQD_BINARY and NSQLOOKUPD_BINARY have to name the reference"
    for path in map(Path, names):
        fixture = load(path)
        with tempfile.TemporaryDirectory() as folder:
            anyio.run(record, fixture, Path(folder))
        path.write_text(fixture.dump())


if __name__ == "__main__":
    main(sys.argv[1:])
