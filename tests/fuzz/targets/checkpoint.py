"""The two files of the checkpoint. The first byte says what the rest is: a whole file, or the body of one."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgpack

from pynsqd.storage.checkpoint import FILE_NAMES, Checkpoint, _pack_head
from pynsqd.wire.errors import StartupError

_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
_OLDER = {"t": {"n": 1}}


def seeds() -> Iterable[bytes]:
    """Return files and bodies as they are written, and bodies that are not."""
    older = _file(1, _body(_OLDER))
    (_FOLDER / FILE_NAMES[1]).write_bytes(older)
    body = _body({"a": {"end": 1, "channels": {"c": {"owed": [[1, b"x" * 16, 2]]}}}, "b": {}})
    yield b"\0" + _file(2, body)
    yield b"\1" + body
    for wrong in ([], {"a": 1}, {1: b""}, {"a": b"\xc1"}, {"a": msgpack.packb([])}, "a", None):
        yield b"\1" + msgpack.packb(wrong)


def run(data: bytes) -> None:
    """Raise unless the file counts as whole, is passed over for the older one, or is of a later release."""
    written = data[1:] if not data or data[0] % 2 == 0 else _file(2, data[1:])
    (_FOLDER / FILE_NAMES[0]).write_bytes(written)
    (_FOLDER / FILE_NAMES[1]).write_bytes(_file(1, _body(_OLDER)))
    try:
        checkpoint = Checkpoint(_FOLDER)
    except StartupError as error:
        assert "is of version" in str(error)
        return
    assert checkpoint.states is not None
    for topic, state in checkpoint.states.items():
        assert isinstance(topic, str)
        assert isinstance(state, dict)
    checkpoint.close()


def _body(states: dict[str, dict[str, object]]) -> bytes:
    packed: bytes = msgpack.packb({topic: msgpack.packb(state) for topic, state in states.items()})
    return packed


def _file(generation: int, body: bytes) -> bytes:
    return _pack_head(1, generation, body) + body
