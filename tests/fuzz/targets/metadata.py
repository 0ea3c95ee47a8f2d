"""The file of topics and channels."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgpack

from pynsqd.storage.metadata import FILE_NAME, ChannelMeta, TopicMeta, append, load, save
from pynsqd.wire.errors import StartupError
from pynsqd.wire.names import is_valid_name

_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
_PATH = _FOLDER / FILE_NAME


def seeds() -> Iterable[bytes]:
    """Return files as they are written, and documents that are nearly right."""
    save(_FOLDER, [TopicMeta("a", True, "fsync", (ChannelMeta("c", True), ChannelMeta("d#ephemeral", False)))])
    yield _PATH.read_bytes()
    append(_FOLDER, [("a", "c", None), ("b", "", TopicMeta("b", False, "log", ()))], sync_now=False)
    append(_FOLDER, [("b", "e", ChannelMeta("e", True)), ("a", "", None)], sync_now=False)
    yield _PATH.read_bytes()
    save(_FOLDER, [])
    yield _PATH.read_bytes()
    for document in ({"version": 2}, {"version": 1, "topics": [[]]}, [1], "version", msgpack.Timestamp(1, 2), None):
        yield msgpack.packb(document)


def run(data: bytes) -> None:
    """Raise unless the file is refused, or read as names and booleans that survive a save."""
    _PATH.write_bytes(data)
    try:
        topics = load(_FOLDER)
    except StartupError as error:
        assert "\n" not in str(error)
        return
    for topic in topics:
        assert is_valid_name(topic.name)
        assert all(is_valid_name(channel.name) for channel in topic.channels)
    save(_FOLDER, topics)
    assert load(_FOLDER) == topics
