"""The golden exchanges of proto_fixtures/: reading and writing the files. README.md there describes the format."""

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[2] / "proto_fixtures"
SHARED: Final = "shared.json"
WAITS_FOR: Final = ("tls", "compression", "auth", "disk")

Event = dict[str, Any]
Data = str | list[Any]
"""Bytes as the files hold them: text with one character per byte, or a list of pieces."""

Binding = dict[str, bytes]
"""What a reference stands for in this run: message ids and timestamps by name."""


@dataclass
class Fixture:
    """One case: a server with its flags, and the events in order."""

    group: str
    name: str
    server: str
    flags: list[str]
    origin: str
    events: list[Event]
    about: str = ""
    waits_for: str = ""
    deviation: str = ""

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"

    @property
    def path(self) -> Path:
        return FOLDER / self.group / f"{self.name}.json"

    def events_for(self, target: str) -> Iterator[tuple[int, Event]]:
        """Yield the numbered events that hold for ``target``, "pynsqd" or "nsqd"."""
        for number, event in enumerate(self.events):
            if event.get("only", target) == target:
                yield number, event

    def dump(self) -> str:
        """Return the text of the file: one line per event, so that a difference is a line."""
        keys = ("about", "origin", "server", "flags", "waits_for", "deviation")
        head = {key: getattr(self, key) for key in keys if getattr(self, key) != ""}
        lines = [f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()]
        events = ",\n".join(f"    {json.dumps(event)}" for event in self.events)
        return "{\n" + "".join(lines) + f'  "events": [\n{events}\n  ]\n}}\n'


def load(path: Path) -> Fixture:
    """Read one file; raises TypeError for keys that do not belong there."""
    return Fixture(group=path.parent.name, name=path.stem, **json.loads(path.read_text()))


def load_all() -> list[Fixture]:
    """Read all of them in the order of their paths."""
    return [load(path) for path in sorted(FOLDER.glob("*/*.json"))]


@dataclass(frozen=True)
class Shared:
    """What all cases share: masks for texts, and names for the usual sets of response headers."""

    text_masks: list[tuple[str, str]]
    header_sets: dict[str, dict[str, str]] = field(default_factory=dict)

    def mask(self, text: str, more: list[list[str]]) -> str:
        """Replace in ``text`` what changes from run to run, by the shared masks and then by ``more``."""
        for pattern, replacement in [*self.text_masks, *more]:
            text = re.sub(pattern, replacement, text)
        return text

    def name_headers(self, headers: dict[str, str]) -> str | dict[str, str]:
        """Return the name of this set of response headers, or the set if it has none."""
        return next((name for name, usual in self.header_sets.items() if usual == headers), headers)


@cache
def shared() -> Shared:
    """Read proto_fixtures/shared.json."""
    return Shared(**json.loads((FOLDER / SHARED).read_text()))


def encode(data: Data, bound: Binding) -> bytes:
    """Return the bytes that ``data`` describes. Raises KeyError for a reference that nothing has bound yet."""
    if isinstance(data, str):
        return data.encode("latin-1")
    return b"".join(_encode_piece(piece, bound) for piece in data)


def _encode_piece(piece: Any, bound: Binding) -> bytes:
    match piece:
        case str():
            return piece.encode("latin-1")
        case int():
            return struct.pack(">i", piece)
        case {"repeat": str(text), "times": int(times)}:
            return text.encode("latin-1") * times
        case {"id": str(ref)}:
            return bound[ref]
        case {"time": str(ref)}:
            return bound[f"{ref} time"]
    raise TypeError(f"no piece of data: {piece!r}")


def bind(data: Data, raw: bytes, bound: Binding) -> None:
    """Bind the references of ``data`` that are new to what stands in their place in ``raw``."""
    at = 0
    for piece in [data] if isinstance(data, str) else data:
        match piece:
            case {"id": str(ref)}:
                bound.setdefault(ref, raw[at : at + 16])
            case {"time": str(ref)}:
                bound.setdefault(f"{ref} time", raw[at : at + 8])
        at += len(_encode_piece(piece, bound))
